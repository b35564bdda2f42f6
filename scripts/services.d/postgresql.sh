# PostgreSQL: FerretDB's storage, used by nothing else. Superuser postgres, trusted on loopback.

postgresql_port() { echo "${IM_SERVICES_POSTGRESQL_PORT:-16432}"; }

# The newest of Debian's; a `postgres` on the PATH may be something else.
postgresql_programs() { ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1; }

postgresql_install() {
  [ -x "$(postgresql_programs)/postgres" ] || apt_install postgresql postgresql-client
  [ -x "$(postgresql_programs)/postgres" ] || { echo "no PostgreSQL under /usr/lib/postgresql" >&2; return 1; }
}

postgresql_start() {
  local data user
  data=$(data_folder postgresql) user=$(user_of postgresql)
  if [ ! -e "$data/initialized" ]; then
    rm -rf "$data" && install -d -m 700 -o "$user" "$data" || return 1
    (cd / && $(as_user "$user") "$(postgresql_programs)/initdb" --pgdata="$data" --username=postgres --auth=trust \
      --encoding=UTF8 --locale=C.UTF-8 --no-sync) >>"$(log_file postgresql)" 2>&1 || return 1
    touch "$data/initialized"
  fi
  # After SIGKILL its lock names a process that may still wait for its parent to notice: PostgreSQL takes that for alive.
  if [ -e "$data/postmaster.pid" ] && ! start_time "$(head -n 1 "$data/postmaster.pid")" >/dev/null; then
    rm -f "$data/postmaster.pid"
  fi
  # plan_cache_mode: a generic plan does not know which field is compared, and uses no index.
  # shared_buffers: holds a few hundred thousand messages; without it a cold page costs milliseconds.
  spawn postgresql "$(postgresql_programs)/postgres" -D "$data" -p "$(postgresql_port)" -c listen_addresses=127.0.0.1 \
    -c unix_socket_directories= -c plan_cache_mode=force_custom_plan -c jit=off -c shared_buffers=512MB \
    -c max_connections=60 -c max_wal_size=2GB -c checkpoint_timeout=15min \
    -c im.equalities="${IM_SERVICES_EQUALITIES:-_id,l,p,o,i,h,w}"
}

postgresql_query() { # database statement...
  PGCONNECT_TIMEOUT=2 timeout 10 "$(postgresql_programs)/psql" -qAtX -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$(postgresql_port)" \
    -U postgres "$@"
}

postgresql_ready() { [ "$(postgresql_query -d postgres -c 'SELECT 1')" = 1 ]; }

postgresql_env() { :; }
