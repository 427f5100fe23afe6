# SPDX-License-Identifier: Apache-2.0
# Part of scripts/lab: etcd, one member or three, each in a namespace and with a cable of its own, so that a test can cut it.
# shellcheck shell=bash disable=SC2154

members() {
  case $store in etcd) echo s1 ;; etcd3) echo s1 s2 s3 ;; esac
}
member_address() { echo "10.9.0.24${1#s}"; }
store_scheme() { if [ "$tls" ]; then echo https; else echo http; fi; }
# etcd of the engine's Debian, where it has one
store_path() { echo "${engine:+$engine:}$PATH"; }
# What etcdctl needs in its environment beside the endpoints
store_env() {
  printf '%s\n' ETCDCTL_API=3 "PATH=$(store_path)"
  [ -z "$tls" ] || printf '%s\n' "ETCDCTL_CACERT=$state/tls/etcd/ca.pem" "ETCDCTL_CERT=$state/tls/etcd/cert.pem" "ETCDCTL_KEY=$state/tls/etcd/key.pem"
}
# One authority, and a certificate of it each for etcd (all members and etcdctl) and weftd (all hosts), with its own copy
certificates() {
  local dir=$state/tls key=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes) who
  mkdir -p "$dir/etcd" "$dir/weftd"
  printf 'subjectAltName=IP:10.9.0.241,IP:10.9.0.242,IP:10.9.0.243\nextendedKeyUsage=serverAuth,clientAuth\n' > "$dir/extensions"
  openssl req -x509 "${key[@]}" -keyout "$dir/key.pem" -out "$dir/ca.pem" -subj /CN=lab -days 2 2> "$dir/log" || die "no authority: $(cat "$dir/log")"
  for who in etcd weftd; do
    cp "$dir/ca.pem" "$dir/$who/ca.pem"
    openssl req "${key[@]}" -keyout "$dir/$who/key.pem" -out "$dir/request" -subj "/CN=$who" 2> "$dir/log" &&
      openssl x509 -req -in "$dir/request" -out "$dir/$who/cert.pem" -CA "$dir/ca.pem" -CAkey "$dir/key.pem" -CAcreateserial \
        -extfile "$dir/extensions" -days 2 2> "$dir/log" || die "no certificate for $who: $(cat "$dir/log")"
  done
}
# store_list SUFFIX PREFIX: of all members, comma-separated
store_list() {
  local m list=()
  for m in $(members); do list+=("${2-}$(member_address "$m")$1"); done
  (IFS=,; echo "${list[*]}")
}

store_spawn() {
  local m
  for m in $(members); do
    link_to "$m" "24${m#s}" "${m#s}" 1 "$(widest)"
    mkdir -p "$state/$m"
    spawn_etcd "$m"
  done
}

spawn_etcd() {
  local m=$1 a k cluster=() files=()
  [ "$(pid_of "$m" etcd)" = 0 ] || return 0
  a=$(member_address "$m")
  for k in $(members); do cluster+=("$k=http://$(member_address "$k"):2380"); done
  [ -z "$tls" ] || files=(--client-cert-auth --cert-file "$state/tls/etcd/cert.pem" --key-file "$state/tls/etcd/key.pem" --trusted-ca-file "$state/tls/etcd/ca.pem")
  touch "$state/$m/etcd.log"
  stat -c %s "$state/$m/etcd.log" > "$state/$m/etcd.offset"
  setsid ip netns exec "$name-$m" env PATH="$(store_path)" etcd --name "$m" --data-dir "$state/$m/data" \
    --listen-client-urls "$(store_scheme)://$a:2379" --advertise-client-urls "$(store_scheme)://$a:2379" "${files[@]}" \
    --listen-peer-urls "http://$a:2380" --initial-advertise-peer-urls "http://$a:2380" \
    --initial-cluster "$(IFS=,; echo "${cluster[*]}")" < /dev/null >> "$state/$m/etcd.log" 2>&1 9>&- &
  echo $! > "$state/$m/etcd.pid"
}

wait_etcd() {
  wait_until etcd_answers "$1" || die "etcd on $1 does not answer: $(tail -n 3 "$state/$1/etcd.log")"
}
etcd_answers() {
  # just started, it may not have entered its namespace yet
  [ "$(pid_of "$1" etcd)" != 0 ] || { kill -0 "$(cat "$state/$1/etcd.pid")" 2> /dev/null && return 1; return 2; }
  said "$1" etcd 'ready to serve client requests' || return 1
  # not by flag: etcdctl refuses what environment and flags both say
  local env
  mapfile -t env < <(store_env)
  ip netns exec "$name-$1" env "${env[@]}" "ETCDCTL_ENDPOINTS=$(store_scheme)://$(member_address "$1"):2379" \
    etcdctl endpoint health > /dev/null 2>&1
}
store_wait() { local m; for m in $(members); do wait_etcd "$m"; done; }
