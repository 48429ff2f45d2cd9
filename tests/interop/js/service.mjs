// Services of swarmp2p as another language sees them (docs/interop.md): their keys, and their signed records.
import { createHash } from 'node:crypto'

import { byteStream } from '@libp2p/utils'

const MULTIHASH = Buffer.from([0x12, 0x20]) // sha2-256, 32 bytes
const RECORD_PROTOCOL = '/swarm/record/1.0.0'
const SIGNED_PREFIX = Buffer.from('swarmp2p:service-record\0')

// The multihash that the providers of a service publish under.
export const serviceKey = (service) =>
  Buffer.concat([MULTIHASH, createHash('sha256').update('swarmp2p:service\0').update(service, 'utf8').digest()])

// A provider's own record of a service, asked of the provider and verified; null when it does not offer it.
export const readRecord = async (node, provider, service) => {
  const stream = await node.dialProtocol(provider, RECORD_PROTOCOL)
  const bytes = byteStream(stream)
  const request = packRequest(service)
  await bytes.write(Buffer.concat([uint32(request.length), request]))
  const length = Buffer.from((await bytes.read({ bytes: 4 })).subarray()).readUInt32BE()
  const { record } = unpack((await bytes.read({ bytes: length })).subarray())
  await stream.close()
  if (record.length === 0) return null
  const [payload, signature] = unpack(record)
  const genuine = await provider.publicKey.verify(Buffer.concat([SIGNED_PREFIX, payload]), signature)
  if (!genuine) throw new Error('the record is not its provider\'s')
  const { service: named, attrs, seq, expires } = unpack(payload)
  if (named !== service || expires * 1000 < Date.now()) throw new Error('the record is of something else, or over')
  return { attributes: attrs, sequence: seq, expires }
}

const uint32 = (value) => {
  const encoded = Buffer.alloc(4)
  encoded.writeUInt32BE(value)
  return encoded
}

// {"service": name} in msgpack; names have 1 to 64 bytes.
const packRequest = (service) => {
  const name = Buffer.from(service, 'utf8')
  const head = name.length < 32 ? [0xa0 | name.length] : [0xd9, name.length]
  return Buffer.concat([Buffer.from([0x81, 0xa7]), Buffer.from('service'), Buffer.from(head), name])
}

// As much of msgpack as records use.
const unpack = (data) => {
  const buffer = Buffer.from(data)
  let at = 0
  const take = (size) => {
    at += size
    return buffer.subarray(at - size, at)
  }
  const unsigned = (size) => Number(take(size).reduce((sum, byte) => sum * 256n + BigInt(byte), 0n))
  const list = (size) => Array.from({ length: size }, value)
  const map = (size) => Object.fromEntries(Array.from({ length: size }, () => [value(), value()]))
  const text = (size) => take(size).toString('utf8')
  function value () {
    const type = unsigned(1)
    if (type < 0x80) return type
    if (type < 0x90) return map(type & 0x0f)
    if (type < 0xa0) return list(type & 0x0f)
    if (type < 0xc0) return text(type & 0x1f)
    if (type >= 0xe0) return type - 256
    switch (type) {
      case 0xc2: return false
      case 0xc3: return true
      case 0xc4: case 0xc5: return take(unsigned(1 << (type - 0xc4)))
      case 0xcb: return take(8).readDoubleBE()
      case 0xcc: case 0xcd: case 0xce: case 0xcf: return unsigned(1 << (type - 0xcc))
      case 0xd0: return take(1).readInt8()
      case 0xd1: return take(2).readInt16BE()
      case 0xd2: return take(4).readInt32BE()
      case 0xd3: return Number(take(8).readBigInt64BE())
      case 0xd9: case 0xda: return text(unsigned(1 << (type - 0xd9)))
      case 0xde: return map(unsigned(2))
      default: throw new Error(`msgpack type ${type}`)
    }
  }
  return value()
}
