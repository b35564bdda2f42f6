# MariaDB, in MySQL's place, with the sql_mode that MySQL 8 has by default. User and password: im.

mariadb_port() { echo "${IM_SERVICES_MARIADB_PORT:-16306}"; }
mariadb_install() { need_apt mariadbd mariadb-server; }

mariadb_start() {
  local data
  data=$(data_folder mariadb)
  if [ ! -e "$data/initialized" ]; then
    rm -rf "$data" && install -d -o "$(user_of mariadb)" "$data" || return 1
    mariadb-install-db --no-defaults --user="$(user_of mariadb)" --datadir="$data" --auth-root-authentication-method=normal \
      --skip-test-db --skip-name-resolve >>"$(log_file mariadb)" 2>&1 || return 1
    cat >"$data/init.sql" <<'SQL'
CREATE DATABASE IF NOT EXISTS im CHARACTER SET utf8mb4;
CREATE USER IF NOT EXISTS 'im'@'127.0.0.1' IDENTIFIED BY 'im';
GRANT ALL ON *.* TO 'im'@'127.0.0.1' WITH GRANT OPTION;
SQL
    touch "$data/initialized"
  fi
  local tls=()
  ! is_tls || tls=(--ssl-cert="$(tls_file mysql.pem)" --ssl-key="$(tls_file mysql.key)" --require-secure-transport=ON)
  # The socket's path is relative: a full one could pass the 107 bytes that a socket address holds.
  spawn mariadb mariadbd --no-defaults --datadir="$data" --bind-address=127.0.0.1 --port="$(mariadb_port)" \
    --socket=mariadb.sock --pid-file=mariadb.pid --init-file="$data/init.sql" --skip-name-resolve --skip-log-bin \
    --innodb-buffer-pool-size=96M --innodb-log-file-size=64M --innodb-flush-log-at-trx-commit=1 --max-connections=100 \
    "${tls[@]}" --performance-schema=OFF --character-set-server=utf8mb4 \
    --sql-mode=ONLY_FULL_GROUP_BY,STRICT_TRANS_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION
}

mariadb_ready() {
  local tls=()
  ! is_tls || tls=(--ssl-ca="$(tls_file mysql-ca.pem)" --ssl-verify-server-cert)
  timeout 3 mariadb --no-defaults "${tls[@]}" -h 127.0.0.1 -P "$(mariadb_port)" -u im -pim --connect-timeout=2 -e 'SELECT 1' im
}

mariadb_env() {
  local tls=""
  ! is_tls || tls="?ssl-mode=VERIFY_IDENTITY&ssl-ca=$(tls_file mysql-ca.pem)"
  echo "IM_TEST_MYSQL=mysql://im:im@127.0.0.1:$(mariadb_port)/im$tls"
}
