// SPDX-License-Identifier: Apache-2.0
// What gets through, on underlays of 1,400, 1,500, 9,000 and mixed: every container talks with every other one, on the
// same host and across, over both families, by address and by name, and with a client outside.
import t, { type Test } from 'tap'
import { idle, type Lab, openLab } from './lab.ts'

const mib = 1 << 20
const manyFragments = 20_000 // bytes of a datagram
/** Bytes around a frame of the network, by family of the underlay. */
const vxlan = { 4: 50, 6: 70 } as const
const outsideMtu = 1500
const client = { 4: '192.0.2.10', 6: '2001:db8::10' }
const families = [4, 6] as const
type Family = (typeof families)[number]
const headers = { 4: 28, 6: 48 } // of ICMP and UDP

/**
 * `serve` echoes TCP and UDP at port 7. `probe HOST FROM LABEL FAMILY MTU TRIES SIZES` for each target, several at once:
 * a line for each check. It runs in a container's network namespace; perl-base is on every Debian.
 */
const perl = String.raw`
use strict; use warnings; use Socket qw(:all); $SIG{PIPE} = 'IGNORE';
sub udp_echo { my $s = shift; while (1) { my $p = recv($s, my $b, 70000, 0); send($s, $b, 0, $p) if defined $p } }
sub tcp_echo {
  my $s = shift; $SIG{CHLD} = 'IGNORE';
  while (1) {
    accept(my $c, $s) or next;
    if (!fork) { while (sysread($c, my $b, 65536)) { write_all($c, $b) } exit 0 }
    close $c
  }
}
sub write_all { my ($c, $b) = @_; while (length $b) { my $n = syswrite($c, $b) // die "write: $!\n"; substr($b, 0, $n) = '' } }
sub opened { # with room for all large datagrams that arrive while somebody else has the CPU
  my ($type, $a) = @_; socket(my $s, $a->{family}, $type, 0) or die "socket: $!\n";
  setsockopt($s, SOL_SOCKET, 33, 8 << 20) if $type == SOCK_DGRAM; # SO_RCVBUFFORCE
  $s
}
sub listening {
  my $type = shift; my $s = opened($type, { family => AF_INET6 }); setsockopt($s, IPPROTO_IPV6, IPV6_V6ONLY, 0);
  bind($s, pack_sockaddr_in6(7, IN6ADDR_ANY)) or die "bind: $!\n"; $s
}
sub random { open(my $f, '<', '/dev/urandom'); my $b = ''; sysread($f, $b, $_[0]); $b }
sub resolved { # a name is in the answers soon after its container has started
  my ($to, $family) = @_; my $hint = { family => $family == 4 ? AF_INET : AF_INET6, socktype => SOCK_STREAM };
  for (1 .. 100) { my ($e, $a) = getaddrinfo($to, 7, $hint); return $a if $a; select(undef, undef, undef, 0.1) }
  die "$to has no address\n"
}
sub connected {
  my ($type, $a) = @_;
  for (1 .. 100) { my $s = opened($type, $a); return $s if connect($s, $a->{addr}); $!{ECONNREFUSED} or die "connect: $!\n"; select(undef, undef, undef, 0.1) }
  die "connection refused\n"
}
sub tcp { # there and back at the same time
  my ($a, $size) = @_; my $s = connected(SOCK_STREAM, $a); my $block = random(65532); my $data = '';
  $data .= pack('N', length $data) . $block while length $data < $size;
  if (!(my $writer = fork)) { write_all($s, $data); shutdown($s, 1); exit 0 }
  my $back = ''; while (sysread($s, $back, 65536, length $back)) {}
  $back eq $data or die sprintf("%d of %d bytes, or not the same\n", length $back, length $data)
}
sub udp { # a try more than one only where a router on the way has to tell its MTU first
  my ($a, $size, $tries) = @_; my $s = connected(SOCK_DGRAM, $a); my $why = '';
  for (1 .. $tries) {
    my $data = random($size); defined send($s, $data, 0) or do { $why = "send: $!"; next };
    my $ready = ''; vec($ready, fileno $s, 1) = 1; select($ready, undef, undef, $tries > 1 ? 1 : 20) or do { $why = 'no answer'; next };
    defined recv($s, my $back, 70000, 0) or do { $why = "receive: $!"; next };
    return if $back eq $data; $why = sprintf('%d bytes, or not the same', length $back)
  }
  die "$why\n"
}
sub ping { my ($to, $family, $size) = @_; my $out = qx(ping -$family -n -c 1 -W 20 -M do -s $size $to 2>&1); ($?, $out =~ tr/\n/ /r) }
sub passes { my ($code, $out) = ping(@_); $code == 0 or die "$out\n" }
sub is_refused {
  my $mtu = pop; my ($code, $out) = ping(@_); $code != 0 or die "answered\n";
  return if $out =~ /(message too long|needed|too big|mtu)\D*$mtu\b/i;
  # newer ones do not say for which: IP_MTU, IPV6_MTU
  $out =~ /sendmsg: Message too long/ && unpack('i', getsockopt(connected(SOCK_DGRAM, resolved($_[0], $_[1])), $_[1] == 4 ? 0 : 41, $_[1] == 4 ? 14 : 24)) == $mtu or die "not for MTU $mtu: $out\n"
}
sub check { my ($label, $what, $do) = @_; my $why = eval { local $SIG{ALRM} = sub { die "too slow\n" }; alarm 60; $do->(); 'ok' } // $@; alarm 0; chomp $why; syswrite(STDOUT, "$label $what: $why\n") }
if (shift eq 'serve') {
  my ($t, $u) = (listening(SOCK_STREAM), listening(SOCK_DGRAM)); listen($t, 128);
  if (fork) { tcp_echo($t) } else { udp_echo($u) }
}
while (@ARGV) {
  my ($to, $label, $family, $mtu, $tries, $sizes, $tcp) = splice @ARGV, 0, 7; next if fork;
  my $a = eval { resolved($to, $family) } or do { check($label, 'name', sub { die $@ }); exit 0 };
  my $fits = $mtu - ($family == 4 ? 28 : 48);
  check($label, "tcp $tcp", sub { tcp($a, $tcp) });
  for my $size (split /,/, $sizes) { check($label, "udp $size", sub { udp($a, $size, $tries) }) }
  check($label, 'ping', sub { passes($to, $family, 56) });
  check($label, "ping $fits", sub { passes($to, $family, $fits) });
  check($label, 'one byte more', sub { is_refused($to, $family, $fits + 1, $mtu) });
  exit 0
}
1 while wait != -1;
`

interface Container {
  readonly host: string
  readonly name: string
  readonly 4: string
  readonly 6: string
}
interface Target {
  readonly to: string
  readonly label: string
  readonly family: Family
  /** Of the way there. */
  readonly mtu: number
  readonly tries: number
  readonly sizes: readonly number[]
}

const started = async (lab: Lab, host: string, name: string): Promise<Container> => {
  await lab.docker(host, 'run', '-d', '--network', 'app', '--name', name, 'busybox', ...idle)
  const format = '{{.NetworkSettings.Networks.app.IPAddress}} {{.NetworkSettings.Networks.app.GlobalIPv6Address}}'
  const [v4, v6] = (await lab.docker(host, 'inspect', '-f', format, name)).split(' ') as [string, string]
  return { host, name, 4: v4, 6: v6 }
}
/** A shell function: a command in the network of a container of this host, with its resolver. */
const within = `within() {
  set -- $(docker inspect -f '{{.ResolvConfPath}} {{.State.Pid}}' "$1") "$@"
  unshare -m sh -c 'mount --bind "$1" /etc/resolv.conf; p=$2; shift 3; exec nsenter -t $p -n "$@"' sh "$@"
}`
const serve = (lab: Lab, who: string, commands: readonly string[]): Promise<string> =>
  lab.exec(
    who,
    'sh',
    '-c',
    commands.map(c => `${c} perl -e "$1" serve < /dev/null > /dev/null 2>&1 &`).join('\n'),
    'sh',
    perl,
  )

/** Everything of a container with everybody else, and the lines that say so. */
const talk = async (lab: Lab, containers: readonly Container[], targets: (from: Container) => Target[]) => {
  const wanted: string[] = []
  const ofContainer = (from: Container): string => {
    const words = targets(from).flatMap(({ to, label, family, mtu, tries, sizes }) => {
      const fits = `ping ${mtu - headers[family]}`
      const checks = [`tcp ${4 * mib}`, ...sizes.map(size => `udp ${size}`), 'ping', fits, 'one byte more']
      wanted.push(...checks.map(check => `${label} ${check}: ok`))
      return [to, `'${label}'`, family, mtu, tries, sizes.join(), 4 * mib]
    })
    return `within ${from.name} perl -e "$1" probe ${words.join(' ')} &`
  }
  const ofHost = (host: string): Promise<string> => {
    const own = containers.filter(container => container.host === host).map(ofContainer)
    return lab.exec(host, 'sh', '-c', [within, ...own, 'wait'].join('\n'), 'sh', perl)
  }
  const hosts = [...new Set(containers.map(({ host }) => host))]
  const lines = (await Promise.all(hosts.map(ofHost))).flatMap(text => text.split('\n'))
  return { lines: lines.sort(), wanted: wanted.sort() }
}
const sizesFor = (mtu: number, family: Family): number[] => {
  const fits = mtu - headers[family]
  return [1, fits, fits + 1, manyFragments]
}

/** By address and by name, over both families. */
const others = (containers: readonly Container[], mtu: number) => (from: Container) =>
  containers.flatMap(to =>
    families.flatMap(family =>
      to === from
        ? []
        : [to[family], to.name].map(way => {
            const label = `${from.name} -> ${to.name}: ${way} IPv${family}`
            return { to: way, label, family, mtu, tries: 1, sizes: sizesFor(mtu, family) }
          }),
    ),
  )
/** The client; its own large datagrams do not come through to a host with less than the switch between them. */
const outside = (inside: number, underlay: (host: string) => number, widest: number) => (from: Container) =>
  families.map((family): Target => {
    const mtu = Math.min(inside, outsideMtu)
    const sizes = sizesFor(mtu, family).filter(size => size <= mtu - headers[family] || underlay(from.host) === widest)
    const label = `${from.name} -> client: IPv${family}`
    return { to: client[family], label, family, mtu, tries: 4, sizes }
  })

const linksOf = async (lab: Lab, host: string, vni: number): Promise<string[]> => {
  const text = await lab.inside(host, 'n', vni, 'ip', '-j', 'link')
  const links = JSON.parse(text) as { ifname: string; mtu: number }[]
  return links.filter(({ ifname }) => ifname !== 'lo').map(({ ifname, mtu }) => `${ifname} ${mtu}`)
}
/** Packets that this host has fragmented itself, IPv4 and IPv6: all that weft sends over the underlay is to fit. */
const fragments = (lab: Lab, host: string): Promise<string> => {
  const column = '/^Ip:/ { if (n) print $n; else while ($++n != "FragCreates"); } /^Ip6FragCreates/ { print $2 }'
  return lab.exec(host, 'awk', column, '/proc/net/snmp', '/proc/net/snmp6')
}

const check = async (t: Test, lab: Lab, underlays: readonly number[], family: 4 | 6): Promise<void> => {
  const hosts = underlays.map((_, i) => `h${i + 1}`)
  const mtu = Math.min(...underlays) - vxlan[family]
  await lab.docker('h1', 'network', 'create', '-d', 'weft', '--ipam-driver', 'weft', '--ipv6', 'app')
  for (const host of hosts) await lab.shows(host, 'app')
  const places = [...hosts.map(host => [host, `on-${host}`] as const), ['h1', 'near'] as const]
  const containers = await Promise.all(places.map(([host, name]) => started(lab, host, name)))
  const vni = await lab.vni('h1', 'app')
  for (const { host, name } of containers)
    t.equal(await lab.docker(host, 'exec', name, 'cat', '/sys/class/net/eth0/mtu'), String(mtu), `MTU of ${name}`)
  for (const host of hosts)
    for (const link of await linksOf(lab, host, vni)) t.match(link, new RegExp(` ${mtu}$`), `MTU on ${host}: ${link}`)

  await serve(lab, 'client', ['setsid'])
  for (const host of hosts) {
    const own = containers.filter(container => container.host === host)
    const network = ({ name }: Container) => `setsid nsenter -t $(docker inspect -f '{{.State.Pid}}' ${name}) -n`
    await serve(lab, host, own.map(network))
  }
  const between = await talk(lab, containers, others(containers, mtu))
  t.same(between.lines, between.wanted, `${between.wanted.length} checks between containers`)
  for (const host of hosts) t.equal(await fragments(lab, host), '0\n0', `${host} has fragmented nothing`)
  const out = await talk(
    lab,
    containers,
    outside(mtu, host => underlays[hosts.indexOf(host)]!, Math.max(...underlays)),
  )
  t.same(out.lines, out.wanted, `${out.wanted.length} checks with a client outside`)
}

for (const [family, ...underlays] of [
  [4, 1400, 1400],
  [4, 1500, 1500, 1500],
  [4, 9000, 9000],
  [4, 1500, 9000, 1400],
  [6, 1500, 1500],
] as const)
  t.test(`underlay ${underlays.join(', ')}, over IPv${family}`, async t => {
    const lab = await openLab(
      'under',
      underlays.length,
      '--mtu',
      underlays.join(),
      ...(family === 6 ? ['--no-weft'] : []),
    )
    try {
      if (family === 6)
        for (const i of underlays.keys())
          await lab.ok('start', `h${i + 1}`, 'weftd', '--weftd-args', `--vtep fd09::${i + 1}`)
      await check(t, lab, underlays, family)
    } finally {
      await lab.close()
    }
  })
