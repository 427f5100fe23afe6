# SPDX-License-Identifier: Apache-2.0
# Part of scripts/lab: dockerd, weftd and etcd of a lab: start, stop, kill, wait.
# shellcheck shell=bash disable=SC2154

# pid_of WHO init|dockerd|weftd|etcd: as this machine sees it; 0 when it does not run (or its number is another's now)
pid_of() {
  local pid=0
  { read -r pid < "$state/$1/$2.pid"; } 2> /dev/null || true
  if [ "${pid:-0}" != 0 ] && [ "/proc/$pid/ns/net" -ef "/run/netns/$name-$1" ]; then echo "$pid"; else echo 0; fi
}
child_of() { # the one child of a process that nsenter or unshare left waiting
  local pid
  read -r pid _ < "/proc/$1/task/$1/children" || true
  echo "${pid:-0}"
}

# wait_until TEST ARG…: the test says 0 yes, 1 not yet, 2 never
wait_until() {
  local end=$((SECONDS + patience)) code
  while :; do
    code=0
    "$@" || code=$?
    [ "$code" != 0 ] || return 0
    [ "$code" != 2 ] && [ "$SECONDS" -lt "$end" ] || return 1
    sleep 0.05
  done
}

# spawn HOST WHAT CMD…: in the background, a session of its own, log appended, pid as this machine sees it
spawn() {
  local host=$1 what=$2 dir=$state/$1 init outer search
  shift 2
  init=$(pid_of "$host" init)
  [ "$init" != 0 ] || die "host $host is down: scripts/lab reboot $host"
  touch "$dir/$what.log"
  stat -c %s "$dir/$what.log" > "$dir/$what.offset"
  search=$(host_path) # not below: a substitution there is a child of the background process, taken for the daemon
  setsid nsenter -t "$init" -m -u -i -n -p env -C / -u DOCKER_CONTEXT -u DOCKER_HOST PATH="$search" "$@" \
    < /dev/null >> "$dir/$what.log" 2>&1 9>&- &
  outer=$!
  echo 0 > "$dir/$what.pid"
  wait_until has_child "$outer" || die "$what on $host did not start: $(tail -n 3 "$dir/$what.log")"
  child_of "$outer" > "$dir/$what.pid"
}
has_child() { [ -d "/proc/$1" ] || return 2; [ "$(child_of "$1" 2> /dev/null)" != 0 ]; }

spawn_weftd() {
  local host=$1 url=embedded args
  [ "$(pid_of "$host" weftd)" = 0 ] || return 0
  [ "$store" = embedded ] || url=etcd://$(store_list :2379)
  read -r -a args <<< "$weftd_args"
  [ -z "$tls" ] || args=(--etcd-ca "$state/tls/weftd/ca.pem" --etcd-cert "$state/tls/weftd/cert.pem" --etcd-key "$state/tls/weftd/key.pem" "${args[@]}")
  spawn "$host" weftd "$here/node" "$root/dist/main.js" --node "$host" --vtep "10.9.0.${host#h}" --underlay-dev eth0 \
    --store "$url" --data-dir "$state/$host/weft" --plugin-socket /run/docker/plugins/weft.sock \
    --docker unix:///run/docker.sock --api-socket /run/weft/weft.sock "${args[@]}"
}
wait_weftd() { wait_until weftd_ready "$1" || die "weftd on $1 is not ready: $(tail -n 3 "$state/$1/weftd.log")"; }
weftd_ready() {
  ! said "$1" weftd '"msg":"ready"' || return 0
  [ "$(pid_of "$1" weftd)" != 0 ] || return 2
  return 1
}

said() { tail -c +"$(($(cat "$state/$1/$2.offset") + 1))" "$state/$1/$2.log" | grep "$3" > /dev/null; } # since its start

spawn_dockerd() {
  [ "$(pid_of "$1" dockerd)" = 0 ] || return 0
  spawn "$1" dockerd dockerd
}
wait_dockerd() {
  local tries=0
  until wait_until dockerd_answers "$1"; do
    # dockerd gives containerd 15 s, and several that start at once on a slow machine need more
    if [ "$((tries += 1))" -gt 5 ] || ! said "$1" dockerd 'timeout waiting for containerd'; then
      die "dockerd on $1 does not answer: $(tail -n 3 "$state/$1/dockerd.log")"
    fi
    spawn_dockerd "$1"
  done
}
dockerd_answers() {
  [ "$(pid_of "$1" dockerd)" != 0 ] || return 2
  # asking is dear on a slow machine: not before there is a socket
  [ -S "/proc/$(pid_of "$1" init)/root/run/docker.sock" ] && enter "$1" docker version > /dev/null 2>&1
}

each_of() { # each_of WHO WHAT: the members or the host that are meant, or an error
  case $1/$2 in
    h*/dockerd | h*/weftd) [ -d "$state/$1" ] || die "no host $1 in lab $name"; echo "$1" ;;
    store/etcd) members ;;
    s[1-3]/etcd) [ -d "$state/$1" ] || die "no member $1 in lab $name"; echo "$1" ;;
    *) wrong "$1 $2: a host with dockerd or weftd, or store (s1…s3) with etcd" ;;
  esac
}
start() {
  local who list
  list=$(each_of "$1" "$2") || exit $?
  for who in $list; do "spawn_$2" "$who"; done
  for who in $list; do "wait_$2" "$who"; done
}
end() { # end SIGNAL WHO WHAT
  local who pid list
  list=$(each_of "$2" "$3") || exit $?
  for who in $list; do
    pid=$(pid_of "$who" "$3")
    [ "$pid" = 0 ] || kill "-$1" "$pid" 2> /dev/null || true
  done
  for who in $list; do
    pid=$(pid_of "$who" "$3")
    [ "$pid" = 0 ] || wait_until is_gone "$who" "$3" "$pid" || die "$3 on $who (pid $pid) does not end"
    rm -f "$state/$who/$3.pid"
  done
}
is_gone() { [ "$(pid_of "$1" "$2")" != "$3" ]; }

logs() {
  local who=$1
  [ "$who" != store ] || who=s1
  [ -f "$state/$who/$2.log" ] || die "no log of $2 on $1 in lab $name"
  cat "$state/$who/$2.log"
}
