# Apache Kafka, one broker that is its own controller (KRaft), from Maven Central. scripts/brokers makes several of it, with
# further lines of server.properties (IM_SERVICES_KAFKA_PROPERTIES) and one cluster id (IM_SERVICES_KAFKA_CLUSTER).

kafka_port() { echo "${IM_SERVICES_KAFKA_PORT:-16192}"; }
kafka_tls_port() { echo "${IM_SERVICES_KAFKA_TLS_PORT:-16194}"; }
kafka_controller_port() { echo "${IM_SERVICES_KAFKA_CONTROLLER_PORT:-16193}"; }

kafka_install() {
  need_apt java default-jre-headless || return 1
  up_to_date "$folder/programs/kafka.stamp" "$here/kafka/pom.xml" && return 0
  need_apt mvn maven || return 1
  echo "fetching Kafka"
  rm -rf "$folder/programs/kafka" "$folder/programs/kafka.jsa"
  tries mvn -q -B -f "$here/kafka/pom.xml" dependency:copy-dependencies -DincludeScope=runtime \
    -DoutputDirectory="$folder/programs/kafka" >>"$folder/log/install.log" 2>&1 ||
    { tail -n 5 "$folder/log/install.log" >&2; return 1; }
  set_stamp "$folder/programs/kafka.stamp" "$here/kafka/pom.xml"
}

kafka_start() {
  local data java archive="$folder/programs/kafka.jsa"
  data=$(data_folder kafka)
  java=(java -Xms128m -Xmx512m -XX:+UseSerialGC "-Dlog4j2.configurationFile=$here/kafka/log4j2.properties"
    -cp "$folder/programs/kafka/*")
  if [ ! -e "$data/initialized" ]; then
    rm -rf "$data" && mkdir -p "$data" || return 1
    kafka_properties "$data" >"$data/server.properties"
    local user=()
    ! is_tls || user=(--add-scram 'SCRAM-SHA-512=[name=im,password=im]')
    "${java[@]}" kafka.tools.StorageTool format -t "$(kafka_cluster_id)" -c "$data/server.properties" "${user[@]}" \
      >>"$(log_file kafka)" 2>&1 || return 1
    touch "$data/initialized"
  fi
  # The ports may be others than last time.
  kafka_properties "$data" >"$data/server.properties"
  # The classes as the first orderly stop leaves them: starts again with 3 s of CPU instead of 5.
  if [ -e "$archive" ]; then java+=("-XX:SharedArchiveFile=$archive"); else java+=("-XX:ArchiveClassesAtExit=$archive"); fi
  spawn kafka "${java[@]}" kafka.Kafka server.properties
}

kafka_properties() { # data folder
  cat "$here/kafka/server.properties"
  local tls=""
  ! is_tls || tls=",SASL_SSL://127.0.0.1:$(kafka_tls_port)"
  echo "listeners=PLAINTEXT://127.0.0.1:$(kafka_port),CONTROLLER://127.0.0.1:$(kafka_controller_port)$tls"
  # Where clients come back to; a test puts a proxy there.
  echo "advertised.listeners=PLAINTEXT://127.0.0.1:${IM_SERVICES_KAFKA_ADVERTISED_PORT:-$(kafka_port)}$tls"
  echo "controller.quorum.voters=1@127.0.0.1:$(kafka_controller_port)"
  echo "log.dirs=$1/log"
  # Of one name the last line counts.
  ! is_tls || kafka_tls_properties
  printf '%s\n' "${IM_SERVICES_KAFKA_PROPERTIES:-}"
}

kafka_tls_properties() {
  cat <<PROPERTIES
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
ssl.keystore.type=PEM
ssl.keystore.location=$(tls_file server-both.pem)
PROPERTIES
}

kafka_cluster_id() { echo "${IM_SERVICES_KAFKA_CLUSTER:-$(head -c 16 /dev/urandom | base64 | tr '+/' 'AB' | head -c 22)}"; }

# A Metadata request (version 0, no topic named: all of them). The answer says how many brokers serve; one must.
kafka_ready() {
  local answer
  exec 3<>"/dev/tcp/127.0.0.1/$(kafka_port)" || return 1
  printf '\0\0\0\x12\0\x03\0\0\0\0\0\x07\0\x04test\0\0\0\0' >&3
  answer=$(timeout 3 head -c 12 <&3 | od -An -tx1 | tr -d ' \n')
  exec 3>&-
  [[ ${answer:8} == 000000070000000[1-9] ]]
}

kafka_env() {
  echo "IM_TEST_KAFKA=127.0.0.1:$(kafka_port)"
  ! is_tls || echo "IM_TEST_KAFKA_TLS=127.0.0.1:$(kafka_tls_port)"
}
