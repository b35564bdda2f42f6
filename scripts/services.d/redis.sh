# Redis: in memory only. What a restart loses is rebuilt by the server; a test that wants an old snapshot back says SAVE.

redis_port() { echo "${IM_SERVICES_REDIS_PORT:-16379}"; }
redis_install() { need_apt redis-server redis-server; }

redis_start() {
  local listen=(--port "$(redis_port)")
  ! is_tls || listen=(--port 0 --tls-port "$(redis_port)" --tls-cert-file "$(tls_file server.pem)"
    --tls-key-file "$(tls_file server.key)" --tls-ca-cert-file "$(tls_file ca.pem)" --tls-auth-clients no
    --user default off --user im on '>im' '~*' '&*' '+@all')
  mkdir -p "$(data_folder redis)"
  spawn redis redis-server --bind 127.0.0.1 "${listen[@]}" --dir . --save '' --appendonly no \
    --maxmemory 256mb --maxmemory-policy noeviction
}

redis_ready() {
  local login=()
  ! is_tls || login=(--tls --cacert "$(tls_file ca.pem)" --user im --pass im --no-auth-warning)
  [ "$(timeout 3 redis-cli -h 127.0.0.1 -p "$(redis_port)" "${login[@]}" ping)" = PONG ]
}

redis_env() {
  local login=redis://
  ! is_tls || login=rediss://im:im@
  echo "IM_TEST_REDIS=${login}127.0.0.1:$(redis_port)/"
}
