// SPDX-License-Identifier: Apache-2.0
import t from 'tap'
import { errnoName, NetlinkError, summarize } from '../../src/netlink/errors.ts'

t.test('text, names and meaning', async t => {
  const error = new NetlinkError({
    op: 'add vxlan "vx"',
    errno: 34,
    detail: 'too large',
    attribute: 'IFLA_VXLAN_ID',
    index: 3,
  })
  t.equal(error.message, 'add vxlan "vx": ERANGE: too large (attribute IFLA_VXLAN_ID)')
  t.match(error, { code: 'KERNEL', errnoName: 'ERANGE', retryable: false, absent: false, index: 3 })
  t.match(new NetlinkError({ op: 'x', errno: 16 }), { message: 'x: EBUSY', retryable: true })
  for (const errno of [2, 3, 19, 99]) t.ok(new NetlinkError({ op: 'x', errno }).absent)
  t.strictSame([85, 95, 524, 74, 11, 9999].map(errnoName), [
    'ERESTART',
    'EOPNOTSUPP',
    'ENOTSUPP',
    'EBADMSG',
    'EAGAIN',
    'errno 9999',
  ])
})

t.test('many failures in one line', async t => {
  const errors = [17, 17, 17, 2, 17].map((errno, i) => new NetlinkError({ op: `add ${i}`, errno }))
  t.equal(summarize(errors), 'add 0: EEXIST; add 1: EEXIST; add 2: EEXIST; in all 4 EEXIST, 1 ENOENT')
  t.equal(summarize(errors.slice(3)), 'add 3: ENOENT; add 4: EEXIST')
})
