# Services that speak TLS, where IM_SERVICES_TLS=yes: Redis, MariaDB and FerretDB then speak nothing else; Kafka does on a port of
# its own besides, with SCRAM, for builds that can.
#
# In: nothing but openssl. Out: certificates of the address 127.0.0.1, which name no host: MariaDB's by an authority of its own
# (mysql-ca.pem), the others' by one that does not vouch for it (ca.pem). Always: made once for a folder; the keys are of no
# worth outside it, and the services' users may read them.

is_tls() { [ "${IM_SERVICES_TLS:-}" = yes ]; }
tls_file() { echo "$folder/tls/$1"; }

tls_install() {
  is_tls || return 0
  need_apt openssl openssl || return 1
  (
    flock 7
    [ ! -e "$(tls_file made)" ] || return 0
    mkdir -p "$folder/tls" && chmod 755 "$folder/tls" && cd "$folder/tls" || return 1
    { tls_certificate ca server && tls_certificate mysql-ca mysql && touch made; } >>"$folder/log/install.log" 2>&1
  ) 7>"$folder/run/tls.lock"
}

tls_certificate() { # authority name
  local new=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)
  openssl req -x509 "${new[@]}" -days 3650 -subj "/CN=$1 of these services" -keyout "$1.key" -out "$1.pem" &&
    openssl req "${new[@]}" -subj "/CN=$2" -keyout "$2.key" -out "$2.csr" &&
    openssl x509 -req -in "$2.csr" -CA "$1.pem" -CAkey "$1.key" -CAcreateserial -days 3650 \
      -extfile <(echo subjectAltName=IP:127.0.0.1) -out "$2.pem" &&
    cat "$2.key" "$2.pem" >"$2-both.pem" && chmod 644 "$1.pem" "$2.pem" "$2.key" "$2-both.pem"
}
