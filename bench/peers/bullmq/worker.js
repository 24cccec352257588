// One BullMQ worker process: takes jobs, posts their data to the target, returns the status, which BullMQ keeps in Redis.
import { Worker } from 'bullmq'
import IORedis from 'ioredis'
import { Pool } from 'undici'

const concurrency = Number(process.env.BENCH_CONCURRENCY)
const target = new URL(process.env.BENCH_TARGET_URL)

// One connection a job in flight; no two requests wait on one connection.
const pool = new Pool(target.origin, { connections: concurrency, pipelining: 1 })
const headers = { 'content-type': 'application/json' }

async function call(job) {
  const { statusCode, body } = await pool.request({
    path: target.pathname,
    method: 'POST',
    headers,
    body: JSON.stringify(job.data),
  })
  await body.dump()
  return statusCode
}

// Without ioredis' automatic pipelining: with it, memory grew and not the speed.
const connection = new IORedis(process.env.BENCH_REDIS_URL, { maxRetriesPerRequest: null })
const worker = new Worker('bench', call, { connection, concurrency })
worker.on('error', (error) => console.error(error))
process.on('SIGTERM', async () => {
  await worker.close()
  await pool.close()
  connection.disconnect()
})
