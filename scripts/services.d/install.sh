# What the services need on this machine, from the package registries, once.
#
# In: nothing but apt, the Go module proxy and Maven Central. Out: commands in place, programs in $folder. Always: what is
# there is not touched; a daemon that a package would start or enable is neither started nor enabled.

GO_MINOR_MIN=22               # FerretDB 1.24
GO_TOOLCHAIN=v0.0.1-go1.22.12 # where Debian's own is older

need_apt() { # command package...
  local command=$1
  shift
  command -v "$command" >/dev/null 2>&1 && return 0
  apt_install "$@" || return 1
  command -v "$command" >/dev/null 2>&1 || { echo "$command is missing after installing $*" >&2; return 1; }
}

apt_install() { # package...
  [ "$(id -u)" = 0 ] || { echo "missing: $*. As root: apt-get install --no-install-recommends $*" >&2; return 1; }
  (
    flock 8
    local policy=/usr/sbin/policy-rc.d ours=""
    if [ ! -e "$policy" ]; then
      printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy" && ours=yes
    fi
    echo "installing $*"
    # Another installation may be under way.
    local patience=(-o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 -o Acquire::http::Timeout=60)
    { tries apt-get update -qq &&
      DEBIAN_FRONTEND=noninteractive apt-get install "${patience[@]}" -y -qq --no-install-recommends "$@"; } \
      >>"$folder/log/install.log" 2>&1
    local result=$?
    [ -z "$ours" ] || rm -f "$policy"
    if [ $result -ne 0 ]; then tail -n 5 "$folder/log/install.log" >&2; return 1; fi
    for unit in redis-server mariadb postgresql; do # or the next boot would start them
      case " $* " in *" $unit"*) systemctl disable "$unit" >/dev/null 2>&1 ;; esac
    done
    return 0
  ) 8>"$folder/run/apt.lock"
}

# What comes over the network may fail once, or hang. Not for apt-get install, which must not be cut off in the middle.
INSTALL_TRIES=3 INSTALL_TRY_S=600
tries() { # command...
  local try
  for try in $(seq $INSTALL_TRIES); do
    timeout $INSTALL_TRY_S "$@" && return 0
    [ "$try" = $INSTALL_TRIES ] || sleep 5
  done
  return 1
}

# Go: the one that is there, else Debian's; if that is too old, it fetches a newer one as a module.
go_command() {
  need_apt go golang-go ca-certificates >&2 || return 1
  local minor found
  minor=$(go env GOVERSION) minor=${minor#go1.} minor=${minor%%.*}
  if [ "$minor" -ge "$GO_MINOR_MIN" ]; then command -v go; return; fi
  found=$(tries go mod download -json "golang.org/toolchain@$GO_TOOLCHAIN.linux-$(go env GOARCH)" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
  [ -d "$found" ] || return 1
  if [ ! -x "$found/bin/go" ]; then # modules carry no execute bits
    chmod -R u+w "$found" && chmod +x "$found"/bin/* "$found"/pkg/tool/*/*
  fi
  echo "$found/bin/go"
}

# Builds something once for each state of its sources: $1 is the stamp, the rest are the sources.
up_to_date() { # stamp source...
  local stamp=$1
  shift
  [ "$(cat "$stamp" 2>/dev/null)" = "$(cat "$@" | cksum)" ]
}
set_stamp() { # stamp source...
  local stamp=$1
  shift
  cat "$@" | cksum >"$stamp"
}
