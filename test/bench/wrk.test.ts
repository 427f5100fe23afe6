// SPDX-License-Identifier: Apache-2.0
import t from 'tap'
import { parseWrk } from '../../bench/mesh/load.ts'

const said = (...lines: readonly string[]): string =>
  [
    'Running 1s test @ http://10.9.0.2:8003/',
    '  Latency Distribution',
    '     50%  412.00us',
    '     75%    1.02ms',
    '     90%    1.60ms',
    '     99%    2.31ms',
    ...lines,
    'Requests/sec:  21178.41',
    'Transfer/sec:      3.29MB',
  ].join('\n')

t.test('what wrk prints', async t => {
  t.same(parseWrk(said()), { perSecond: 21178.41, p50: 412, p99: 2310 })
  t.same(parseWrk(said().replace('2.31ms', '1.50s')).p99, 1_500_000)
})

t.test('failed requests are no measurement', async t => {
  t.throws(() => parseWrk(said('  Socket errors: connect 0, read 3, write 0, timeout 0')), /Socket errors/)
  t.throws(() => parseWrk(said('  Non-2xx or 3xx responses: 4')), /Non-2xx/)
  t.throws(() => parseWrk('unable to connect to 10.9.0.1:8003 Connection refused'), /unable to connect/)
})
