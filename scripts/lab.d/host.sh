# SPDX-License-Identifier: Apache-2.0
# Part of scripts/lab: a host, its daemons, and commands inside it. The host's disk is $state/HOST; killing its init
# kills everything in it.
# shellcheck shell=bash disable=SC2154

need_tools() {
  local tool missing=()
  PATH=${engine:+$engine:}$PATH
  for tool in ip nft unshare nsenter busybox dockerd docker iptables curl; do
    command -v "$tool" > /dev/null || missing+=("$tool")
  done
  [ "$store" = embedded ] || command -v etcd > /dev/null || missing+=(etcd)
  [ ${#missing[@]} = 0 ] || die "missing: ${missing[*]}. Install with: scripts/install base lab"
  [ -z "$weft" ] || [ -f "$root/dist/main.js" ] || die "weftd is not built: npm ci && npm run build (or --no-weft)"
}

# The client next to the engine, never another one of this machine.
host_path() { echo "${engine:+$engine:}/usr/sbin:/usr/bin:/sbin:/bin"; }

inside() {
  local who=$1 init
  shift
  case $who in
    client) in_ns x "$@" ;;
    router) in_ns u "$@" ;;
    store) in_ns u env ETCDCTL_API=3 ETCDCTL_ENDPOINTS=http://10.9.0.254:2379 "$@" ;;
    *)
      [ -d "$state/$who" ] || die "no host $who in lab $name"
      init=$(pid_of "$who" init)
      [ "$init" != 0 ] || die "host $who is down"
      nsenter -t "$init" -m -u -n -p env PATH="$(host_path)" WEFT_CACHE="${WEFT_CACHE-}" "$@"
      ;;
  esac
}

# Runs as the first process of the host: its own /proc, /run, cgroups and configuration, then waits for ever.
host_init() {
  cat <<I
set -e
mount --make-rprivate /
mount -t proc proc /proc
mount -t sysfs -o ro sysfs /sys 2> /dev/null || true
if [ "\$(stat -f -c %T /sys/fs/cgroup 2> /dev/null)" = cgroup2fs ]; then mount -t cgroup2 cgroup2 /sys/fs/cgroup; else
  mount -t tmpfs cgroup /sys/fs/cgroup
  for c in \$(awk 'NR > 1 && \$4 == 1 { print \$1 }' /proc/cgroups); do
    mkdir -p /sys/fs/cgroup/\$c
    mount -t cgroup -o \$c \$c /sys/fs/cgroup/\$c 2> /dev/null || rmdir /sys/fs/cgroup/\$c
  done
fi
mount -t tmpfs -o mode=755 run /run
mkdir -p /run/netns /run/weft
mount --bind /run/netns /run/netns
mount --make-shared /run/netns
mkdir -p /etc/docker
mount -t tmpfs docker /etc/docker
cp $state/$1/daemon.json /etc/docker/daemon.json
mount --bind $state/$1/resolv.conf /etc/resolv.conf
hostname $1
echo ready > $state/$1/ready
exec sleep infinity
I
}

host_up() {
  local host=$1 dir=$state/$1 shell tries
  mkdir -p "$dir/docker" "$dir/weft"
  mountpoint -q "$dir/docker" || mount -t tmpfs "$name-$host" "$dir/docker"
  [ -f /etc/resolv.conf ] || : > /etc/resolv.conf
  echo 'nameserver 192.0.2.10' > "$dir/resolv.conf"
  printf '{"dns":["169.254.77.53","192.0.2.10"],"live-restore":%s,"data-root":"%s"}\n' "$live" "$dir/docker" > "$dir/daemon.json"
  rm -f "$dir/ready"
  host_init "$host" > "$dir/init.sh"
  setsid ip netns exec "$name-$host" unshare -m -u -p --fork --kill-child bash "$dir/init.sh" < /dev/null > "$dir/init.log" 2>&1 &
  shell=$!
  for ((tries = 0; tries < 250; tries++)); do
    [ -f "$dir/ready" ] && break
    sleep 0.02
  done
  [ -f "$dir/ready" ] || die "host $host does not come up: $(tail -n 3 "$dir/init.log")"
  pgrep -P "$shell" > "$dir/init.pid" || die "host $host: no first process"
  [ -z "$weft" ] || start "$host" weftd
  start "$host" dockerd
}

# start WHO WHAT; idempotent
start() {
  local who=$1 what=$2 dir=$state/$1 tries
  case $what in
    etcd*) start_etcd "${what#etcd}"; return ;;
  esac
  [ "$(pid_of "$who" "$what")" = 0 ] || return 0
  case $what in
    dockerd) spawn "$who" dockerd dockerd ;;
    weftd)
      local url=embedded args
      [ "$store" = embedded ] || url=etcd://$(store_endpoints)
      read -r -a args <<< "$weftd_args"
      : > "$dir/weftd.ready"
      spawn "$who" weftd "$here/node" "$root/dist/main.js" --node "$who" --vtep "10.9.0.${who#h}" --underlay-dev eth0 \
        --store "$url" --data-dir "$dir/weft" "${args[@]}"
      for ((tries = 0; tries < 500; tries++)); do
        tail -c +"$(($(cat "$dir/weftd.offset") + 1))" "$dir/weftd.log" | grep -q '"msg":"ready"' && return 0
        [ "$(pid_of "$who" weftd)" != 0 ] || break
        sleep 0.02
      done
      die "weftd on $who is not ready: $(tail -n 3 "$dir/weftd.log")"
      ;;
    *) wrong "start $who $what: dockerd, weftd or etcd" ;;
  esac
}

# spawn HOST WHAT CMD…: in the background, its own session, log appended, pid as this machine sees it
spawn() {
  local host=$1 what=$2 dir=$state/$1 init
  shift 2
  init=$(pid_of "$host" init)
  touch "$dir/$what.log"
  stat -c %s "$dir/$what.log" > "$dir/$what.offset"
  setsid bash -c 'exec nsenter -t "$0" -m -u -n -p env PATH="$1" WEFT_CACHE="$2" "${@:3}"' \
    "$init" "$(host_path)" "${WEFT_CACHE-}" "$@" < /dev/null >> "$dir/$what.log" 2>&1 &
  local outer=$! tries pid=
  for ((tries = 0; tries < 100; tries++)); do
    pid=$(pgrep -P "$outer" | head -n 1) && [ -n "$pid" ] && break
    sleep 0.01
  done
  echo "${pid:-$outer}" > "$dir/$what.pid"
}

host_ready() {
  local host=$1 tries
  for ((tries = 0; tries < 600; tries++)); do
    if inside "$host" docker version > /dev/null 2>&1; then
      inside "$host" docker image inspect busybox > /dev/null 2>&1 || inside "$host" docker import "$state/image.tar" busybox > /dev/null
      return 0
    fi
    [ "$(pid_of "$host" dockerd)" != 0 ] || break
    sleep 0.1
  done
  die "dockerd on $host does not answer: $(tail -n 3 "$state/$host/dockerd.log")"
}

host_down() {
  local init
  init=$(pid_of "$1" init)
  [ "$init" = 0 ] || kill -9 "$init"
  while [ "$(pid_of "$1" init)" != 0 ]; do sleep 0.02; done
  rm -f "$state/$1"/*.pid
  ip netns del "$name-$1"
}

# busybox and its applets, nothing else: no registry is asked
make_image() {
  local dir=$state/image applet
  mkdir -p "$dir/bin" "$dir/etc" "$dir/tmp" "$dir/root"
  cp "$(command -v busybox)" "$dir/bin/busybox"
  for applet in $(busybox --list); do [ "$applet" = busybox ] || ln -sf busybox "$dir/bin/$applet"; done
  tar -C "$dir" -cf "$state/image.tar" .
  rm -rf "$dir"
}
