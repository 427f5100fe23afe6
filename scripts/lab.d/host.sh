# SPDX-License-Identifier: Apache-2.0
# Part of scripts/lab: a host. Its disk is $state/HOST; what its first process makes (mounts, namespaces, processes)
# goes when that process goes.
# shellcheck shell=bash disable=SC2154

need_tools() {
  local tool missing=() kernel
  for tool in ip nft unshare nsenter setsid flock busybox iptables sysctl; do
    command -v "$tool" > /dev/null || missing+=("$tool")
  done
  for tool in dockerd containerd runc docker; do
    PATH=${engine:+$engine:}$PATH command -v "$tool" > /dev/null || missing+=("$tool")
  done
  [ "$store" = embedded ] || for tool in etcd etcdctl ${tls:+openssl}; do PATH=$(store_path) command -v "$tool" > /dev/null || missing+=("$tool"); done
  [ ${#missing[@]} = 0 ] || die "missing: ${missing[*]}. Install with: scripts/install base lab"
  busybox --list > /dev/null 2>&1 || die "busybox does not run"
  kernel=$(ldd "$(command -v busybox)" 2>&1 || true)
  [[ $kernel == *'not a dynamic'* ]] || die "$(command -v busybox) is not static, containers cannot run it. Install with: scripts/install lab"
  [ -z "$weft" ] || [ -f "$root/dist/main.js" ] || die "weftd is not built: npm ci && npm run build (or --no-weft)"
}

# The client next to the engine, never another one of this machine.
host_path() {
  local dir=$engine
  [ "$dir" ] || { dir=$(command -v dockerd); dir=${dir%/*}; }
  echo "$dir:/usr/sbin:/usr/bin:/sbin:/bin:$path"
}

# enter WHO CMD…: this process's directory is kept unless it is one that a host has of its own
enter() {
  local who=$1 init dir=$PWD env
  shift
  case $who in
    client | router) exec_if ip netns exec "$(netns_of "$who")" "$@"; return ;;
    store | s[1-3])
      [ "$store" != embedded ] || die "lab $name has no etcd"
      mapfile -t env < <(store_env)
      exec_if ip netns exec "$(netns_of "$who")" env "${env[@]}" "ETCDCTL_ENDPOINTS=$(store_list :2379 "$(store_scheme)://")" "$@"
      return
      ;;
  esac
  [[ $who =~ ^h[0-9]+$ ]] && [ -d "$state/$who" ] || die "nobody is called $who in lab $name: a host (h1…), client, router or store"
  init=$(pid_of "$who" init)
  [ "$init" != 0 ] || die "host $who is down: scripts/lab reboot $who"
  case $dir/ in /run/* | /etc/* | /proc/* | /sys/*) dir=/ ;; esac
  exec_if nsenter -t "$init" -m -u -i -n -p env -C "$dir" -u DOCKER_CONTEXT PATH="$(host_path)" DOCKER_HOST=unix:///run/docker.sock \
    DOCKER_CONFIG=/run/docker-cli "$@"
}
# The last command of this script needs no shell to wait for it.
exec_if() { if [ "$BASH_SUBSHELL" = 0 ] && [[ $command =~ ^(exec|docker|weft)$ ]]; then exec "$@"; else "$@"; fi; }

# What the first process of a host does: its own /proc, /sys, /run, /etc and cgroups; then it waits, and reaps (a dead
# containerd that nobody reaped would look alive to the next dockerd).
host_init() {
  local host=$1 dir=$state/$1
  cat <<I
set -eu
mount --make-rprivate /
mount -t proc proc /proc
if grep -q ' /sys/fs/cgroup[/ ]' /proc/self/mounts; then
  mount --rbind /sys/fs/cgroup '$dir/cgroup'
  mount -t sysfs sysfs /sys
  mount --move '$dir/cgroup' /sys/fs/cgroup
else
  mount -t sysfs sysfs /sys
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
fi
mount -t overlay -o 'lowerdir=/etc,upperdir=$dir/etc,workdir=$dir/etc.work' etc /etc
mount -t tmpfs -o mode=755 run /run
mkdir -p /run/netns /run/weft /run/lock /run/docker-cli /etc/docker
mount --bind /run/netns /run/netns
mount --make-shared /run/netns
cp '$dir/daemon.json' /etc/docker/daemon.json
rm -f /etc/resolv.conf /etc/hostname
for a in $(tr , ' ' <<< "$dns"); do echo "nameserver \$a"; done > /etc/resolv.conf
echo $host > /etc/hostname
echo '127.0.1.1 $host' >> /etc/hosts
hostname $host
# nft or legacy, whichever this kernel has
iptables -w -t nat -S > /dev/null 2>&1 || ! command -v iptables-legacy > /dev/null || for v in iptables ip6tables; do
  for x in '' -save -restore; do [ ! -e /etc/alternatives/\$v\$x ] || ln -sf /usr/sbin/\$v-legacy\$x /etc/alternatives/\$v\$x; done
done
trap : TERM INT HUP
echo ready > '$dir/ready'
while :; do sleep infinity & wait; done
I
}

host_spawn() {
  local host=$1 dir=$state/$1 resolvers
  mkdir -p "$dir/docker" "$dir/weft" "$dir/etc" "$dir/cgroup"
  rm -rf "$dir/etc.work" "$dir/ready"
  mkdir "$dir/etc.work"
  resolvers='"169.254.77.53","fd69:7765:6674:ffff::53"'
  [ -z "$dns" ] || resolvers+=",\"${dns//,/\",\"}\""
  cat > "$dir/daemon.json" <<J
{
  "dns": [$resolvers],
  "live-restore": $live,
  "data-root": "$dir/docker",
  "cgroup-parent": "/weft-lab-$name/$host"
}
J
  host_init "$host" > "$dir/init.sh"
  setsid nsenter --net="/run/netns/$name-$host" unshare -m -u -i -p --fork --kill-child bash "$dir/init.sh" \
    < /dev/null > "$dir/init.log" 2>&1 9>&- &
  echo $! > "$dir/outer.pid"
}
host_wait() {
  local host=$1 dir=$state/$1
  wait_until host_is_there "$host" || die "host $host does not come up: $(tail -n 3 "$dir/init.log")"
  child_of "$(cat "$dir/outer.pid")" > "$dir/init.pid"
}
host_is_there() {
  [ ! -f "$state/$1/ready" ] || return 0
  [ -d "/proc/$(cat "$state/$1/outer.pid")" ] || return 2
  return 1
}

reboot() {
  local host=$1
  ns_down "$name-$host"
  ip -n "$name-u" link del "p$host" 2> /dev/null || true # the kernel would, but later
  rm -f "$state/$host"/*.pid
  host_link "$host"
  host_spawn "$host"
  host_wait "$host"
  [ -z "$weft" ] || { spawn_weftd "$host"; wait_weftd "$host"; }
  spawn_dockerd "$host"
  wait_dockerd "$host"
}

# busybox and its applets, nothing else: no registry is asked
make_image() {
  local dir=$state/image
  mkdir -p "$dir"/{bin,etc,tmp,root,proc,sys,dev,var,run}
  chmod 1777 "$dir/tmp"
  cp "$(command -v busybox)" "$dir/bin/busybox"
  (cd "$dir/bin" && busybox --list | grep -vx busybox | sed 's/.*/ln -s busybox "&"/' | sh)
  echo 'root:x:0:0:root:/root:/bin/sh' > "$dir/etc/passwd"
  echo 'root:x:0:' > "$dir/etc/group"
  tar -C "$dir" -cf "$state/image.tar" .
  rm -rf "$dir"
}
load_image() {
  local host pids=() pid
  for host in "$@"; do
    (
      enter "$host" docker import --change 'CMD ["sh"]' "$state/image.tar" weft/busybox > /dev/null
      enter "$host" docker tag weft/busybox busybox
    ) &
    pids+=($!)
  done
  for pid in "${pids[@]}"; do wait "$pid" || die "could not load the busybox image"; done
}
