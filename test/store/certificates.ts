// SPDX-License-Identifier: Apache-2.0
// Certificates for a test, made with openssl in the folder given: nothing is kept, nothing is committed.
import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { TlsFiles } from '../../src/store/etcd-tls.ts'

export interface Authority {
  readonly ca: string
  /** A certificate for 127.0.0.1, or other addresses, for server and client; days < 0: already expired. */
  issue(name: string, days?: number, addresses?: readonly string[]): TlsFiles
}

export const makeAuthority = (dir: string, name: string): Authority => {
  const openssl = (...args: string[]): void => {
    execFileSync('openssl', args, { stdio: ['ignore', 'ignore', 'pipe'] })
  }
  const path = (file: string): string => join(dir, file)
  const [ca, caKey] = [path(`${name}.pem`), path(`${name}.key`)]
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']
  openssl('req', '-x509', ...newKey, '-keyout', caKey, '-out', ca, '-subj', `/CN=${name}`, '-days', '2')
  return {
    ca,
    issue(who, days = 2, addresses = ['127.0.0.1']) {
      const [cert, key, request, extensions] = ['pem', 'key', 'csr', 'ext'].map(end => path(`${name}-${who}.${end}`))
      const names = ['DNS:localhost', ...addresses.map(address => `IP:${address}`)].join()
      writeFileSync(extensions!, `subjectAltName=${names}\nextendedKeyUsage=serverAuth,clientAuth\n`)
      openssl('req', ...newKey, '-keyout', key!, '-out', request!, '-subj', `/CN=${who}`)
      const signing = ['-CA', ca, '-CAkey', caKey, '-CAcreateserial', '-extfile', extensions!]
      // newer versions refuse one that ends before it begins
      openssl('x509', '-req', '-in', request!, '-out', cert!, ...signing, '-days', String(Math.max(days, 0)))
      if (days < 0) execFileSync('sleep', ['1.5'])
      return { ca, cert: cert!, key: key! }
    },
  }
}
