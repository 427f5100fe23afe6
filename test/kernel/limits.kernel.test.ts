// SPDX-License-Identifier: Apache-2.0
// What the kernel cannot do is said in a sentence for the user of `docker run`: a bridge that is full, a module that is
// not there.
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { inOwnHost } from './reconciled.ts'

if (process.env['WEFT_TEST_HOST'] === undefined) inOwnHost(t, fileURLToPath(import.meta.url))
else {
  const { silentLog } = await import('../../src/base/log.ts')
  const { openLinuxKernel } = await import('../../src/kernel/linux.ts')
  const kernel = openLinuxKernel(silentLog)
  t.teardown(() => kernel.close())
  const ns = 'weft-n99'
  const port = (i: number) =>
    ({ kind: 'veth', ns, name: `c${i}`, mtu: 1450, master: 'br0', peer: { ns, name: `p${i}`, mtu: 1450 } }) as const
  const add = async (...objects: Parameters<typeof one>[0][]) => kernel.apply(objects.map(one))
  const one = (object: Parameters<typeof kernel.apply>[0][number]['object']) => ({ kind: 'add', object }) as const

  t.test('a port more than a bridge has', async t => {
    const made = await add(
      { kind: 'netns', ns },
      { kind: 'bridge', ns, name: 'br0', mac: '02:7f:00:00:00:01', mtu: 1450 },
    )
    t.notOk(made.find(({ error }) => error))
    const pair = (i: number) => `link add d${i} master br0 type veth peer name e${i}\nlink set e${i} master br0\n`
    const fill = Array.from({ length: 511 }, (_, i) => pair(i)).join('')
    execFileSync('ip', ['-n', ns, '-batch', '-'], { input: fill })
    const [fits, fails] = await add(port(1), port(2))
    t.equal(fits?.error, undefined, 'the last one')
    const sentence = /^the bridge in weft-n99 has 1,023 ports and no more fit: start containers/
    t.match(fails?.error?.message, sentence)
    // nothing of it is left, and whoever tries again hears the same
    t.throws(() => execFileSync('ip', ['-n', ns, 'link', 'show', 'c2'], { stdio: 'pipe' }), /"c2" does not exist/)
    const [anew] = await add(port(2))
    t.match(anew?.error?.message, sentence, 'anew')
    // also of a pair that somebody took off its bridge meanwhile
    execFileSync('ip', ['-n', ns, 'link', 'add', 'c2', 'mtu', '1450', 'type', 'veth', 'peer', 'name', 'p2'])
    const { master: _, ...alone } = port(2)
    const [again] = await kernel.apply([{ kind: 'replace', object: port(2), old: alone }])
    t.match(again?.error?.message, sentence, 'repeated')
  })

  // only a kernel that loads modules can be without one
  const modules = '/proc/modules'
  t.test(
    'a kernel without vxlan',
    { skip: existsSync(modules) ? false : 'this kernel has no modules, so vxlan cannot be taken away' },
    async t => {
      if (/^vxlan /m.test(readFileSync(modules, 'utf8'))) execFileSync('rmmod', ['vxlan'])
      const loader = '/proc/sys/kernel/modprobe'
      const before = readFileSync(loader, 'utf8')
      writeFileSync(loader, '/bin/false')
      t.teardown(() => writeFileSync(loader, before))
      const [result] = await add({ kind: 'vxlan', ns, name: 'vx0', mtu: 1450, vni: 99, local: '192.0.2.1', port: 8473 })
      t.match(result?.error?.message, /^vxlan is not supported here: load the module: modprobe vxlan/)
    },
  )
}
