# SPDX-License-Identifier: Apache-2.0
# Part of scripts/lab: what runs, for people and for programs.
# shellcheck shell=bash disable=SC2154

status() { "status_$output"; }

# Paths of sockets are as this machine sees them: through the first process of the host.
status_json() {
  local who i init sep=''
  printf '{"name":"%s","state":"%s","store":"%s","weft":%s,' "$name" "$state" "$store" "$([ "$weft" ] && echo true || echo false)"
  printf '"router":{"netns":"%s","v4":"10.9.0.254","v6":"fd09::fe"},' "$name-u"
  printf '"client":{"netns":"%s","v4":"192.0.2.10","v6":"2001:db8::10"},"members":[' "$name-x"
  for who in $(members); do
    printf '%s{"name":"%s","netns":"%s","v4":"%s","v6":"fd09::24%s","pid":%s,"log":"%s"}' "$sep" "$who" "$name-$who" \
      "$(member_address "$who")" "${who#s}" "$(pid_of "$who" etcd)" "$state/$who/etcd.log"
    sep=,
  done
  printf '],"hosts":['
  sep=''
  for who in $(each_host); do
    i=${who#h}
    init=$(pid_of "$who" init)
    printf '%s{"name":"%s","netns":"%s","v4":"10.9.0.%s","v6":"fd09::%s","mtu":%s,"init":%s,"dockerd":%s,"weftd":%s,"data":"%s",' "$sep" \
      "$who" "$name-$who" "$i" "$i" "$(mtu_of "$who")" "$init" "$(pid_of "$who" dockerd)" "$(pid_of "$who" weftd)" "$state/$who"
    printf '"sockets":{"docker":"%s","plugin":"%s","api":"%s"},' "/proc/$init/root/run/docker.sock" \
      "/proc/$init/root/run/docker/plugins/weft.sock" "/proc/$init/root/run/weft/weft.sock"
    printf '"logs":{"dockerd":"%s","weftd":"%s"}}' "$state/$who/dockerd.log" "$state/$who/weftd.log"
    sep=,
  done
  printf ']}\n'
}

status_table() {
  local who what pid
  printf '%-6s %-8s %-9s %s\n' WHO WHAT PID ADDRESS
  for who in $(members); do row "$who" etcd "$(member_address "$who")"; done
  for who in $(each_host); do
    for what in dockerd ${weft:+weftd}; do row "$who" "$what" "10.9.0.${who#h}  fd09::${who#h}"; done
  done
}
row() {
  local pid
  pid=$(pid_of "$1" "$2")
  [ "$pid" != 0 ] || pid=stopped
  printf '%-6s %-8s %-9s %s\n' "$1" "$2" "$pid" "$3"
}
