// SPDX-License-Identifier: Apache-2.0
// Kernel objects of an endpoint as commands of ip, bridge and nft: what somebody would type for the same.
import { portGroup } from '../../src/kernel/decode.ts'
import { type KernelObject, type NftChainObject, type Ns, ruleTag } from '../../src/kernel/objects.ts'
import { parseAddress } from '../../src/model/address.ts'

export interface Command {
  readonly tool: 'ip' | 'bridge' | 'nft'
  readonly ns: Ns
  /** Behind the tool's name; a line of a batch. */
  readonly words: string
}

/** Throws TypeError for what no endpoint has. */
export const commandsOf = (o: KernelObject): readonly Command[] => {
  switch (o.kind) {
    case 'veth':
      return [
        {
          tool: 'ip',
          ns: '',
          words: `link add ${o.peer.name} mtu ${o.peer.mtu} address ${o.peer.mac} type veth peer name ${o.name} mtu ${o.mtu} netns ${o.ns}`,
        },
        { tool: 'ip', ns: o.ns, words: `link set dev ${o.name} group ${portGroup} master ${o.master} up` },
      ]
    case 'port': {
      const flag = (name: string, on: boolean): string => `${name} ${on ? 'on' : 'off'}`
      const flags = [
        flag('hairpin', o.hairpin),
        flag('flood', o.flood),
        flag('mcast_flood', o.spread),
        flag('bcast_flood', o.spread),
        flag('neigh_suppress', o.suppress),
      ]
      return [{ tool: 'bridge', ns: o.ns, words: `link set dev ${o.dev} learning off ${flags.join(' ')}` }]
    }
    case 'fdb-port':
      return [{ tool: 'bridge', ns: o.ns, words: `fdb replace ${o.mac} dev ${o.dev} master static` }]
    case 'neighbour':
      return [{ tool: 'ip', ns: o.ns, words: `neigh replace ${o.ip} lladdr ${o.mac} dev ${o.dev} nud permanent` }]
    case 'nft-chain':
      return chainCommands(o)
    case 'nft-element': {
      const { ns, family, table, set } = o.set
      const value = o.value ? ` : ${o.value.join(' . ')}` : ''
      return [{ tool: 'nft', ns, words: `add element ${family} ${table} ${set} { ${o.key.join(' . ')}${value} }` }]
    }
    default:
      throw new TypeError(`no command for ${o.kind}`)
  }
}

/** nft takes numbers only where a rule compares raw bits; ours takes addresses too. */
const forNft = (rule: string): string =>
  rule.replace(
    /(@th,64,128 != )(\S+)/g,
    (_, head: string, ip: string) => `${head}0x${parseAddress(ip).value.toString(16)}`,
  )

const chainCommands = ({ ns, family, table, chain, hook, rules }: NftChainObject): readonly Command[] => {
  const where = `${family} ${table} ${chain}`
  const device = hook?.device === undefined ? '' : ` device "${hook.device}"`
  const head = hook
    ? ` { type ${hook.type} hook ${hook.hook}${device} priority ${hook.priority}; policy ${hook.policy}; }`
    : ''
  return [
    { tool: 'nft', ns, words: `add chain ${where}${head}` },
    ...rules.map(
      (rule): Command => ({ tool: 'nft', ns, words: `add rule ${where} ${forNft(rule)} comment "${ruleTag(rule)}"` }),
    ),
  ]
}
