// SPDX-License-Identifier: Apache-2.0
// The README's commands where nothing is but git and the clone. WEFT_BARE_SUITE says which Debian: bookworm (the
// default) or trixie. WEFT_BARE_TEST says what follows `scripts/test` there; empty for the whole, which takes its time.
import { readFileSync } from 'node:fs'
import t from 'tap'
import { run } from './lab.ts'
import { command, Machine } from './machine.ts'

const minutes = 85
t.setTimeout((minutes + 30) * 60_000)
if (process.getuid?.() !== 0) {
  t.plan(0, 'needs root for namespaces')
  process.exit()
}

const installed = await run('scripts/install', ['bare'])
if (installed.code !== 0) throw new Error(installed.err)
const machine = new Machine(process.env['WEFT_BARE_SUITE'] ?? 'bookworm')
t.teardown(() => machine.close())
await machine.make()
const clone = '/root/weft'
const before = machine.state()
const packages = (): Promise<string> => machine.run('dpkg-query -W').then(result => result.out)
const bare = await packages()

t.test('a clone, and nothing else', async t => {
  t.match(await machine.run(`git clone -q /srv/weft.git ${clone}`), { code: 0 })
  t.match(await machine.run('scripts/demo --help', 'root', clone), { code: 0, out: /usage: scripts\/demo/ })
  t.not((await machine.run('command -v node npm dockerd ip curl sudo python3 make')).code, 0)
})

t.test('elsewhere a clear error, and nothing is touched', async t => {
  const others = { 'fedora 41': 'ID=fedora\nVERSION_ID=41', 'debian 11': 'ID=debian\nVERSION_ID="11"' }
  for (const [name, text] of Object.entries(others)) {
    machine.write('/srv/os-release', `${text}\n`)
    for (const script of ['scripts/demo', 'scripts/test']) {
      const there = await machine.run(
        `unshare -m sh -c 'mount --bind /srv/os-release /etc/os-release; ${script}'`,
        'root',
        clone,
      )
      t.match(there, { code: 1, err: `install: needs Debian 12 or 13 on amd64 (this is ${name} on x86_64)` }, script)
    }
  }
  const small = await machine.run('setarch linux32 scripts/demo', 'root', clone)
  t.match(small, { code: 1, err: /needs Debian 12 or 13 on amd64 \(this is debian 1[23] on i686\)/ })
  const apart = ['--mount', '--pid', '--fork', '--kill-child']
  // plain chroots, seen from outside
  const chroot = `exec chroot '${machine.folder}' env -i PATH=/usr/sbin:/usr/bin HOME=/root ${clone}/scripts/demo`
  t.match(await command('unshare', [...apart, 'sh', '-c', chroot]), { code: 1, err: 'demo: needs /proc mounted' })
  const mounted = `mount -t proc proc '${machine.folder}/proc' && ${chroot}`
  t.match(await command('unshare', [...apart, 'sh', '-c', mounted]), { code: 1, err: /demo: \/ is not a mount point/ })
  await machine.run('useradd -m joe && git clone -q /srv/weft.git ~joe/weft && chown -R joe: ~joe/weft')
  const user = await machine.run('scripts/demo', 'joe', '/home/joe/weft')
  t.match(user, { code: 1, err: 'demo: needs root, and there is no sudo' })
  t.equal(await packages(), bare)
  t.same(machine.state(), before)
})

t.test('while apt works no service may start, and another Docker is left alone', async t => {
  const programs = {
    dockerd: 'exit 0',
    'apt-get': 'echo "$*" >> /srv/fake/asked; /usr/sbin/policy-rc.d docker start; echo "policy $?" >> /srv/fake/asked',
  }
  for (const [name, text] of Object.entries(programs)) machine.write(`/srv/fake/${name}`, `#!/bin/sh\n${text}\n`, 0o755)
  const result = await machine.run('PATH=/srv/fake:$PATH scripts/install base lab', 'root', clone)
  t.equal(result.code, 0, result.err)
  const asked = await machine.run('cat /srv/fake/asked')
  t.match(asked.out, /install .*npm.*etcd-server/)
  t.notMatch(asked.out, /docker\.io|docker-cli/)
  t.match(asked.out, /policy 101/)
  t.notMatch(asked.out, /policy [^1]/)
  t.same(machine.state(), before, 'the policy is gone')
})

t.test('Ctrl-C while packages are fetched leaves nothing', async t => {
  const result = await machine.interrupt('scripts/demo', /install: fetched/, 'root', clone)
  t.equal(result.code, 130, result.out.slice(-1000))
  t.match(result.out, /interrupted, cleaning up/)
  t.equal(await packages(), bare)
  t.same(machine.state(), before)
})

t.test('what the README says of real hosts brings weftd', async t => {
  const readme = readFileSync(new URL('../../README.md', import.meta.url), 'utf8')
  const [, block = ''] = /## On real hosts\n[^`]*(?:`[^`\n]+`[^`]*)*```\n(.*?)```/s.exec(readme)!
  const script = `set -e\n${block.replace(/ --store .*/, ' --help')}`
  t.match(block, /--store/)
  t.match(await machine.run(script, 'root', clone), { code: 0, out: /Usage: weftd/ })
})

t.test('scripts/demo installs, builds, shows, and what it prints works', async t => {
  const begin = performance.now()
  const demo = await machine.run('scripts/demo', 'root', clone)
  t.comment(`first run: ${Math.round((performance.now() - begin) / 1000)} s`)
  t.equal(demo.code, 0, `${demo.out}${demo.err}`.slice(-3000))
  t.match(demo.err, /install: fetched .*install: set up/s, 'with progress')
  t.match(demo.out, /hello from bob/)
  const printed = demo.out.match(/^ {2}scripts\/lab .*$/gm) ?? []
  t.equal(printed.length, 9)
  for (const line of printed) {
    const answer = await machine.run(line, 'root', clone)
    t.equal(answer.code, 0, `${line}: ${answer.err}`)
  }
  t.equal(machine.processes(false).length, 1, 'no service of its own started')
  t.match(await machine.run('dpkg -S "$(command -v node)" && dpkg -V nodejs npm docker.io'), {
    code: 0,
    out: /^nodejs: /,
  })
})

t.test('a second run is quick, and --down leaves nothing', async t => {
  const begin = performance.now()
  const demo = await machine.run('scripts/demo', 'root', clone)
  const seconds = Math.round((performance.now() - begin) / 1000)
  t.ok(seconds < 60, `second run: ${seconds} s`)
  t.equal(demo.code, 0, demo.err)
  t.notSame(machine.state(), before, 'there is something to look for')
  t.match(await machine.run('scripts/demo --down', 'root', clone), { code: 0, err: '' })
  t.same(machine.state(), before)
})

const few = 'scripts/test --no-vm test/scripts/install.test.ts'
const chosen = process.env['WEFT_BARE_TEST']
const counted = { code: 0, out: /\n[1-9]\d* passed, 0 failed, \d+ skipped\n$/ }
t.test('scripts/test runs, and counts', async t => {
  const result = await machine.run(chosen === undefined ? few : `scripts/test ${chosen}`, 'root', clone, minutes)
  if (chosen !== undefined) t.comment(result.out)
  t.match(result, counted, result.out.slice(-1000))
})

t.test('through sudo, in a clone of one who is not root', async t => {
  const get = 'DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends sudo'
  t.match(await machine.run(`${get} && echo 'joe ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/joe`), { code: 0 })
  const demo = await machine.run('scripts/demo', 'joe', '/home/joe/weft')
  t.equal(demo.code, 0, `${demo.out}${demo.err}`.slice(-3000))
  const printed = demo.out.match(/^ {2}sudo scripts\/lab .*$/gm) ?? []
  t.equal(printed.length, 9)
  for (const line of printed) {
    const answer = await machine.run(line, 'joe', '/home/joe/weft')
    t.equal(answer.code, 0, `${line}: ${answer.err}`)
  }
  const strange = async () => (await machine.run('find ~joe/weft ! -user joe | head')).out
  t.equal(await strange(), '', 'files of the clone stay theirs')
  t.match(await machine.run('scripts/demo --down', 'joe', '/home/joe/weft'), { code: 0 })
  t.same(machine.state(), before)
  t.match(await machine.run(`sudo ${few}`, 'joe', '/home/joe/weft'), counted)
  t.equal(await strange(), '', 'after the tests too')
})

for (const [user, folder] of [
  ['root', clone],
  ['joe', '/home/joe/weft'],
] as const)
  for (const after of [/underlay, router/, /etcd answers/, /weftd ready/, /a container on each host/]) {
    t.test(`Ctrl-C of ${user} after ${after} leaves nothing`, async t => {
      const result = await machine.interrupt('scripts/demo', after, user, folder)
      t.equal(result.code, 130, result.out.slice(-1000))
      t.match(result.out, /interrupted, cleaning up/)
      t.notMatch(result.out, /Look around/)
      t.same(machine.state(), before)
    })
  }
