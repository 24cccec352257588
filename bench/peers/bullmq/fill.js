// Adds so many jobs, a few thousand a call.
import { Queue } from 'bullmq'
import IORedis from 'ioredis'

const connection = new IORedis(process.env.BENCH_REDIS_URL, { maxRetriesPerRequest: null })
const queue = new Queue('bench', { connection })
const data = JSON.parse(process.env.BENCH_PAYLOAD)
const step = 2000
for (let left = Number(process.argv[2]); left > 0; left -= step) {
  await queue.addBulk(Array.from({ length: Math.min(step, left) }, () => ({ name: 'call', data })))
}
await queue.close()
connection.disconnect()
