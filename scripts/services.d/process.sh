# Processes that outlive the command that started them.
#
# In: the name of a service, a command line. Out: one process per name, its log in $folder/log, its identity in $folder/run.
# Always: a process is known by its pid AND its start time, so a pid that the system gave to someone else is never touched.

STOP_WAIT_S=30 # Kafka closes its log segments; a stop that takes longer ends in SIGKILL, and says so.

log_file() { echo "$folder/log/$1.log"; }
data_folder() { echo "$folder/data/$1"; }

# Clock ticks after boot at which a process started; the command name before it may hold blanks and brackets.
start_time() { # pid
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  set -- ${stat##*) }
  [ "$1" != Z ] && echo "${20}"
}

# The pid of a service, if it runs.
pid_of() { # name
  local pid started
  read -r pid started 2>/dev/null <"$folder/run/$1" || return 1
  [ "$(start_time "$pid")" = "$started" ] && echo "$pid"
}

# SIGSTOP reaches one process; PostgreSQL is many.
with_children() { # pid
  echo "$1"
  cat /proc/"$1"/task/*/children 2>/dev/null | tr ' ' '\n'
}

is_paused() { # pid
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) && set -- ${stat##*) } && [ "$1" = T ]
}

uptime_s() { # pid
  local up
  read -r up _ </proc/uptime
  echo $((${up%.*} - $(start_time "$1") / $(getconf CLK_TCK)))
}

# Runs a command in a session of its own, as the service's user, in its data folder.
spawn() { # name command...
  local name=$1 user
  shift
  user=$(user_of "$name")
  printf -- '--- started %s\n' "$(date -u +%FT%TZ)" >>"$(log_file "$name")"
  rm -f "$folder/run/$name"
  (
    cd "$(data_folder "$name")" || exit 1
    # shellcheck disable=SC2016
    exec setsid -f bash -c '
      exec 9>&- # the lock of `up` must not live on in the service
      read -r stat <"/proc/$$/stat"; rest=(${stat##*) })
      echo "$$ ${rest[19]}" >"$0.new" && mv "$0.new" "$0"
      exec "$@"' "$folder/run/$name" $(as_user "$user") "$@" </dev/null >>"$(log_file "$name")" 2>&1
  )
  until [ -e "$folder/run/$name" ]; do sleep 0.02; done
}

# Only root can and must be someone else: PostgreSQL and MariaDB refuse to run as root.
as_user() { # user
  [ "$1" = "$(id -un)" ] || echo "setpriv --reuid=$1 --regid=$1 --init-groups"
}

# Waits for a real answer; ends early if the process does.
wait_ready() { # name
  local name=$1 deadline=$((SECONDS + READY_WAIT_S))
  while [ $SECONDS -lt $deadline ]; do
    "${name}_ready" >/dev/null 2>&1 && return 0
    pid_of "$name" >/dev/null || break
    sleep 0.1
  done
  echo "$name is not ready; the end of $(log_file "$name"):" >&2
  tail -n 15 "$(log_file "$name")" >&2
  return 1
}

stop_process() { # name
  local name=$1 pid waited=0
  pid=$(pid_of "$name") || return 0
  kill -CONT $(with_children "$pid") 2>/dev/null
  kill "-$(stop_signal "$name")" "$pid" 2>/dev/null
  while pid_of "$name" >/dev/null; do
    [ $waited -ge $((STOP_WAIT_S * 20)) ] && { echo "$name did not stop in ${STOP_WAIT_S} s: SIGKILL"; kill_process "$name"; return; }
    waited=$((waited + 1))
    sleep 0.05
  done
  rm -f "$folder/run/$name"
}

kill_process() { # name
  local pid pids
  pid=$(pid_of "$1") || return 0
  pids=$(with_children "$pid")
  # A stopped process would keep its port until it runs again: children too, for the same reason.
  kill -KILL $pids 2>/dev/null
  for pid in $pids; do
    while start_time "$pid" >/dev/null; do sleep 0.02; done
  done
  rm -f "$folder/run/$1"
}
