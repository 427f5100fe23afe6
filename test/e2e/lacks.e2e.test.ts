// SPDX-License-Identifier: Apache-2.0
// What the user of `docker` reads where the kernel has no vxlan: one sentence with the remedy, and nothing is left. Only a
// kernel that loads modules can be without one, and it is the whole machine's: for the VM, beside no other lab.
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import t from 'tap'
import { idle, openLab } from './lab.ts'

if (!existsSync('/proc/modules') || process.env['WEFT_VM'] === undefined) {
  t.plan(0, 'vxlan can be taken away in the VM only')
  process.exit()
}
t.setTimeout(1_800_000)
const lab = await openLab('lacks', 1)
t.teardown(() => lab.close())
const loader = '/proc/sys/kernel/modprobe'
const before = readFileSync(loader, 'utf8')
t.teardown(() => writeFileSync(loader, before))
const create = (name: string) => lab.tryDocker('h1', ...'network create -d weft --ipam-driver weft'.split(' '), name)

t.test('docker network create says what to load, and leaves nothing', async t => {
  execFileSync('rmmod', ['vxlan'])
  writeFileSync(loader, '/bin/false')
  const { code, err } = await create('app')
  t.equal(code, 1)
  t.match(err, /vxlan is not supported here: load the module: modprobe vxlan, and list it in \/etc\/modules-load\.d/)
  t.notMatch(err, /\n/, 'in one line')
  t.equal(await lab.docker('h1', 'network', 'ls', '-q', '-f', 'driver=weft'), '')
  const gone = async (): Promise<boolean> => (await lab.weft('h1', 'network', 'ls', '-o', 'json')).trim() === '[]'
  t.ok(await lab.until(gone, 30_000), 'nor in the store')
})

t.test('the remedy is one', async t => {
  writeFileSync(loader, before)
  execFileSync('modprobe', ['vxlan'])
  t.match(await lab.until(() => create('app').then(made => made.code === 0 && made), 30_000), { code: 0 })
  await lab.docker('h1', 'run', '-d', '--network', 'app', 'busybox', ...idle)
})
