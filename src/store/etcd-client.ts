// SPDX-License-Identifier: Apache-2.0
// The connection to etcd (package etcd3, for get, put, transaction and lease; its Watcher is forbidden, see watch.ts).
// The rules of the connection: one TCP connection per kind of call, so that big reads cannot starve a watch; pings,
// because a dead path stays unnoticed otherwise; no limit on the size of an answer.

import { createPrivateKey, X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { Etcd3, type IKeyValue } from 'etcd3'
import { describe, WeftError } from '../base/errors.ts'
import type { CallOptions, Entry } from './store.ts'

export interface TlsFiles {
  readonly ca: string
  readonly cert: string
  readonly key: string
}

export const callMs = 5000

export const openEtcdClient = (endpoints: readonly string[], tls: TlsFiles | undefined): Etcd3 =>
  new Etcd3({
    hosts: [...endpoints],
    ...(tls ? { credentials: readTls(tls) } : {}),
    grpcOptions: {
      'grpc.use_local_subchannel_pool': 1,
      'grpc.keepalive_time_ms': 10_000,
      'grpc.keepalive_timeout_ms': 5000,
      'grpc.max_receive_message_length': -1,
      'grpc.max_send_message_length': -1,
    },
    dialTimeout: 3000,
  })

/** Reads and checks the files; an error names the file and what is wrong with it. */
const readTls = ({ ca, cert, key }: TlsFiles) => {
  const read = (flag: string, path: string): Buffer => {
    try {
      return readFileSync(path)
    } catch (error) {
      throw new WeftError('INVALID', `${flag} ${path} cannot be read`, { cause: error })
    }
  }
  const certificate = (flag: string, path: string, pem: Buffer): X509Certificate => {
    try {
      const found = new X509Certificate(pem)
      const now = Date.now()
      if (Date.parse(found.validTo) < now) throw new Error(`expired on ${found.validTo}`)
      if (Date.parse(found.validFrom) > now) throw new Error(`not valid before ${found.validFrom}`)
      return found
    } catch (error) {
      throw new WeftError('INVALID', `${flag} ${path} is no usable certificate`, { cause: error })
    }
  }
  const rootCertificate = read('--etcd-ca', ca)
  const certChain = read('--etcd-cert', cert)
  const privateKey = read('--etcd-key', key)
  certificate('--etcd-ca', ca, rootCertificate)
  const leaf = certificate('--etcd-cert', cert, certChain)
  try {
    if (!leaf.checkPrivateKey(createPrivateKey(privateKey))) throw new Error(`it does not belong to ${cert}`)
  } catch (error) {
    throw new WeftError('INVALID', `--etcd-key ${key} is no usable key`, { cause: error })
  }
  return { rootCertificate, certChain, privateKey }
}

/** STORE_UNAVAILABLE, naming the files where the handshake failed because of them. */
export const unavailable = (what: string, cause: unknown, tls: TlsFiles | undefined): WeftError => {
  const text = describe(cause)
  if (tls && /certificate|SSL|TLS|EPROTO|handshake|alert|altnames/i.test(text))
    return new WeftError(
      'STORE_UNAVAILABLE',
      `etcd ${what}: TLS with --etcd-ca ${tls.ca} and --etcd-cert ${tls.cert} failed`,
      { cause },
    )
  return new WeftError('STORE_UNAVAILABLE', `etcd does not answer (${what})`, { cause })
}

/** Runs a call against its deadline and the caller's signal; a call that comes too late is left behind. */
export const limited = async <T>(options: CallOptions | undefined, work: () => Promise<T>): Promise<T> => {
  const signals = [AbortSignal.timeout(options?.timeoutMs ?? callMs), ...(options?.signal ? [options.signal] : [])]
  const signal = AbortSignal.any(signals)
  signal.throwIfAborted()
  const running = work()
  running.catch(() => {})
  let stop: () => void = () => {}
  const aborted = new Promise<never>((_, reject) => {
    stop = () => reject(signal.reason as Error)
    signal.addEventListener('abort', stop, { once: true })
  })
  try {
    return await Promise.race([running, aborted])
  } finally {
    signal.removeEventListener('abort', stop)
  }
}

export const entryOf = (prefix: string, kv: IKeyValue): Entry => ({
  key: kv.key.toString('utf8').slice(prefix.length),
  value: kv.value.toString('utf8'),
  revision: BigInt(kv.mod_revision),
})

/** First key after all that begin with `prefix`. */
export const endOf = (prefix: Buffer): Buffer => {
  const end = Buffer.from(prefix)
  for (let i = end.length - 1; i >= 0; i--) {
    if (end[i]! < 0xff) {
      end[i]!++
      return end.subarray(0, i + 1)
    }
  }
  return Buffer.from([0])
}
