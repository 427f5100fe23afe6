// SPDX-License-Identifier: Apache-2.0
// A user who may have no inotify instance, as on a host full of containers: namespaces are looked at, and their end
// is noticed.
import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import t from 'tap'

if (process.env['WEFT_TEST_HOST'] === undefined)
  t.spawn(
    'unshare',
    [
      ...['--user', '--map-root-user', '--net', '--mount', 'sh', '-c'],
      'mount -t tmpfs run /run && exec "$@"',
      ...['sh', process.execPath, fileURLToPath(import.meta.url)],
    ],
    { env: { ...process.env, WEFT_TEST_HOST: 'user' } },
    'in a user namespace of its own',
  )
else {
  const { silentLog } = await import('../../src/base/log.ts')
  const { openLinuxKernel } = await import('../../src/kernel/linux.ts')

  t.test('without inotify', async t => {
    writeFileSync('/proc/sys/user/max_inotify_instances', '0')
    const warnings: string[] = []
    const lost: string[] = []
    const kernel = openLinuxKernel({ ...silentLog, warn: (_: unknown, text: string) => warnings.push(text) } as never)
    t.teardown(() => kernel.close())
    kernel.follow(event => {
      if (event.kind === 'lost') lost.push(event.ns)
    })
    const [made] = await kernel.apply([{ kind: 'add', object: { kind: 'netns', ns: 'weft-n99' } }])
    t.equal(made?.error, undefined)
    await sleep(1500)
    t.same(lost, [], 'it is there')
    execFileSync('ip', ['netns', 'del', 'weft-n99'])
    const patienceMs = process.env['WEFT_VM'] ? 60_000 : 5000
    for (const end = Date.now() + patienceMs; lost.length === 0 && Date.now() < end; ) await sleep(50)
    t.same(lost, ['weft-n99'])
    t.equal(warnings.length, 1)
    t.match(warnings[0], /^\/run\/netns is looked at every second: raise fs\.inotify\.max_user_instances/)
  })
}
