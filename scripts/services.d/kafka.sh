# Apache Kafka, one broker that is its own controller (KRaft), from Maven Central.

kafka_port() { echo "${IM_SERVICES_KAFKA_PORT:-16192}"; }
kafka_controller_port() { echo "${IM_SERVICES_KAFKA_CONTROLLER_PORT:-16193}"; }

kafka_install() {
  need_apt java default-jre-headless || return 1
  up_to_date "$folder/programs/kafka.stamp" "$here/kafka/pom.xml" && return 0
  need_apt mvn maven || return 1
  echo "fetching Kafka"
  rm -rf "$folder/programs/kafka" "$folder/programs/kafka.jsa"
  mvn -q -B -f "$here/kafka/pom.xml" dependency:copy-dependencies -DincludeScope=runtime \
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
    "${java[@]}" kafka.tools.StorageTool format -t "$(kafka_cluster_id)" -c "$data/server.properties" \
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
  echo "listeners=PLAINTEXT://127.0.0.1:$(kafka_port),CONTROLLER://127.0.0.1:$(kafka_controller_port)"
  # Where clients come back to; a test puts a proxy there.
  echo "advertised.listeners=PLAINTEXT://127.0.0.1:${IM_SERVICES_KAFKA_ADVERTISED_PORT:-$(kafka_port)}"
  echo "controller.quorum.voters=1@127.0.0.1:$(kafka_controller_port)"
  echo "log.dirs=$1/log"
}

kafka_cluster_id() { head -c 16 /dev/urandom | base64 | tr '+/' 'AB' | head -c 22; }

# A Metadata request (version 0, no topic named: all of them). The answer says how many brokers serve; there must be one.
kafka_ready() {
  local answer
  exec 3<>"/dev/tcp/127.0.0.1/$(kafka_port)" || return 1
  printf '\0\0\0\x12\0\x03\0\0\0\0\0\x07\0\x04test\0\0\0\0' >&3
  answer=$(timeout 3 head -c 12 <&3 | od -An -tx1 | tr -d ' \n')
  exec 3>&-
  [ "${answer:8}" = 0000000700000001 ]
}

kafka_env() { echo "IM_TEST_KAFKA=127.0.0.1:$(kafka_port)"; }
