# Redis: in memory only. What a restart loses is rebuilt by the server; a test that wants an old snapshot back says SAVE.

redis_port() { echo "${IM_SERVICES_REDIS_PORT:-16379}"; }
redis_install() { need_apt redis-server redis-server; }

redis_start() {
  mkdir -p "$(data_folder redis)"
  spawn redis redis-server --bind 127.0.0.1 --port "$(redis_port)" --dir . --save '' --appendonly no \
    --maxmemory 256mb --maxmemory-policy noeviction
}

redis_ready() { [ "$(timeout 3 redis-cli -h 127.0.0.1 -p "$(redis_port)" ping)" = PONG ]; }

redis_env() { echo "IM_TEST_REDIS=redis://127.0.0.1:$(redis_port)/"; }
