// SPDX-License-Identifier: Apache-2.0
// Asks Docker's own resolver (127.0.0.11) for a name again and again, in the namespace of a container: `prober.ts NAME`
// writes the time of the first answer, in ms since 1970, and ends. A question follows the answer to the one before by
// 1 ms; one without an answer is left after 50 ms, before Docker's resolver has too many of them.
import { Resolver } from 'node:dns/promises'
import { setTimeout as sleep } from 'node:timers/promises'

const [name] = process.argv.slice(2) as [string]
const resolver = new Resolver({ timeout: 1000, tries: 1 })
resolver.setServers(['127.0.0.11'])
console.log('asking')
for (;;) {
  const asked = resolver.resolve4(name).then(
    () => performance.timeOrigin + performance.now(),
    () => undefined,
  )
  const answered = asked.then(async at => {
    if (at === undefined) return sleep(1)
    console.log(at)
    process.exit(0)
  })
  await Promise.race([answered, sleep(50)])
}
