# FerretDB on PostgreSQL, in MongoDB's place: same protocol, unique keys, ordered batches. Not the same: write and read
# concern are ignored, there are no transactions, TTL or partial indexes, and an ordered insert keeps its order only up to
# 100 documents.

ferretdb_port() { echo "${IM_SERVICES_FERRETDB_PORT:-16017}"; }

ferretdb_install() {
  local go sources
  sources=("$here/ferretdb/main.go" "$here/ferretdb/go.mod" "$here/ferretdb/go.sum")
  up_to_date "$folder/programs/ferretdb.stamp" "${sources[@]}" && [ -x "$folder/programs/ferretdb" ] && return 0
  go=$(go_command) || return 1
  echo "building FerretDB"
  # Without its other backend, a whole database to compile.
  (cd "$here/ferretdb" && GOFLAGS=-buildvcs=false tries "$go" build -tags ferretdb_no_sqlite -trimpath -ldflags='-s -w' \
    -o "$folder/programs/ferretdb" .) \
    >>"$folder/log/install.log" 2>&1 || { tail -n 5 "$folder/log/install.log" >&2; return 1; }
  set_stamp "$folder/programs/ferretdb.stamp" "${sources[@]}"
}

ferretdb_start() {
  wait_ready postgresql || return 1
  [ "$(postgresql_query -d postgres -c "SELECT count(*) FROM pg_database WHERE datname = 'ferretdb'")" = 1 ] ||
    postgresql_query -d postgres -c 'CREATE DATABASE ferretdb' || return 1
  postgresql_query -d ferretdb -f "$here/postgresql/equality_index.sql" 2>>"$(log_file ferretdb)" || return 1
  mkdir -p "$(data_folder ferretdb)"
  local tls=()
  ! is_tls || tls=("$(tls_file server.pem)" "$(tls_file server.key)")
  GOGC=400 GOMEMLIMIT=400MiB spawn ferretdb "$folder/programs/ferretdb" serve "127.0.0.1:$(ferretdb_port)" \
    "postgres://postgres@127.0.0.1:$(postgresql_port)/ferretdb?pool_max_conns=16" "${tls[@]}"
}

ferretdb_ready() { timeout 5 "$folder/programs/ferretdb" ready "$(ferretdb_url)"; }

ferretdb_url() {
  local tls=""
  ! is_tls || tls="&tls=true&tlsCAFile=$(tls_file ca.pem)"
  echo "mongodb://127.0.0.1:$(ferretdb_port)/?directConnection=true$tls"
}

ferretdb_env() { echo "IM_TEST_MONGODB=$(ferretdb_url)"; }
