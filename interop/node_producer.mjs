#!/usr/bin/env node
// Sends messages with the official Node.js client, as an application would.
//
//     node_producer.mjs ACCESS_POINT TOPIC COUNT [PATIENCE_SECONDS] [INTERVAL_MS] [tls]
//
// Writes `acked <message id> <body>` for each message that the client was told is stored, and at the
// end one line that begins with `summary`. What fails is sent again until it succeeds or patience
// ends, by the same producer: replacing a leader is for the broker and the client to sort out.

import { setTimeout as sleep } from 'node:timers/promises';
import client from 'rocketmq-client-nodejs';

const [accessPoint, topic, countText, patienceText = '90', intervalText = '0', tls] = process.argv.slice(2);
if (countText === undefined) {
  console.error('usage: node_producer.mjs ACCESS_POINT TOPIC COUNT [PATIENCE_SECONDS] [INTERVAL_MS] [tls]');
  process.exit(2);
}
const count = Number(countText);
const patienceMs = Number(patienceText) * 1000;
const intervalMs = Number(intervalText);

// What the client leaves unhandled must not end an application that wants to go on.
let unhandled = 0;
for (const kind of ['uncaughtException', 'unhandledRejection']) {
  process.on(kind, error => {
    unhandled += 1;
    console.error(`${kind} ${error?.stack ?? error}`);
  });
}

const quiet = () => {};
const logger = { debug: quiet, info: quiet, warn: quiet, error: (...words) => console.error(...words) };
const producer = new client.Producer({ endpoints: accessPoint, topics: [topic], logger, sslEnabled: tls === 'tls' });
await producer.startup();

let acked = 0;
let failures = 0;
let longestGapMs = 0;
let last = performance.now();
for (let number = 0; number < count; number++) {
  const body = `${topic}-${number}`;
  for (;;) {
    try {
      // The client names a message when it sends it: one that was not acked may well be stored.
      const receipt = await producer.send({
        topic,
        body: Buffer.from(body),
        tag: 'interop',
        keys: [`key-${number}`],
        properties: new Map([['language', 'node']]),
      });
      console.log(`acked ${receipt.messageId} ${body}`);
      break;
    } catch (error) {
      failures += 1;
      console.error(`failed ${body} ${error}`);
      if (performance.now() - last > patienceMs) {
        console.log(`summary acked=${acked} failures=${failures} gave_up_at=${number}`);
        process.exit(1);
      }
      await sleep(100);
    }
  }
  const now = performance.now();
  longestGapMs = Math.max(longestGapMs, now - last);
  last = now;
  acked += 1;
  await sleep(intervalMs);
}
console.log(
  `summary acked=${acked} failures=${failures} longest_gap_ms=${Math.round(longestGapMs)} unhandled=${unhandled}`,
);
await Promise.race([producer.shutdown().catch(error => console.error(`shutdown ${error}`)), sleep(5000)]);
process.exit(0);
