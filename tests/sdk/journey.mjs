// The journey with the npm package `openai`, in Node's own words: files, a job that is paused on its way, answers of the new model,
// a batch, and everything deleted. Knows nothing of the server but OPENAI_BASE_URL and OPENAI_API_KEY. Takes the arguments that
// journey.py takes. OPENAI_NODE_FOLDER names the folder whose node_modules has the package, for it is not installed beside this file.
// Each step asserts what a client would rely on and prints a line; the last line is JSON with what was measured.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { parseArgs } from 'node:util';

const require = createRequire(path.join(path.resolve(process.env.OPENAI_NODE_FOLDER ?? '.'), 'here.js'));
const { default: OpenAI, toFile } = require('openai');
const { VERSION } = require('openai/version');

const POLL = 300; // milliseconds
const ASKING = 4;
const WAITS = ['validating_files', 'queued', 'running', 'paused'];
const seconds = {};

const text = (value) => ({ type: 'string', default: value });
const { values: asked } = parseArgs({
  options: {
    train: text(), validation: text(), 'held-out': text(), rows: text('60'), model: text('gpt-4o-mini-2024-07-18'),
    base: text(''), suffix: text('orders'), seed: text('7'), epochs: text('auto'), 'batch-size': text('auto'),
    'learning-rate-multiplier': text('auto'), bar: text('0'), deadline: text('900'),
  },
});

const client = new OpenAI({ baseURL: process.env.OPENAI_BASE_URL, apiKey: process.env.OPENAI_API_KEY });

async function main() {
  const heldOut = orders(asked['held-out'], Number(asked.rows));
  const files = await upload();
  const job = await train(files);
  const checkpoint = await lookAt(job);
  const share = await ask(job.fine_tuned_model, checkpoint, heldOut);
  assert(share >= Number(asked.bar), `at least ${asked.bar} of held-out orders are exactly right, not ${share}`);
  const batched = await askInABatch(job.fine_tuned_model, heldOut.slice(0, 20));
  await cancelAnother(files);
  await remove(job.fine_tuned_model, files, heldOut[0]);
  console.log(JSON.stringify({
    sdk: `node ${VERSION}`, exact_match: share, batch_exact_match: batched, rows: heldOut.length, trained_tokens: job.trained_tokens, seconds,
  }));
}

// One line for each step; for the one that fails, everything that the server said.
async function step(name, work) {
  const began = performance.now();
  try {
    const [result, seen] = await work();
    seconds[name] = Math.round((performance.now() - began) / 10) / 100;
    console.log(`ok   ${name}  ${seconds[name]} s  ${seen ? JSON.stringify(seen) : ''}`);
    return result;
  } catch (error) {
    const answer = error instanceof OpenAI.APIError ? `\n     status ${error.status}, x-request-id ${error.requestID}\n     ${JSON.stringify(error.error)}` : '';
    console.log(`FAIL ${name}: ${error.name}: ${error.message}${answer}`);
    throw error;
  }
}

// What `look` answers, once it is `over`.
async function until(look, over, limit, what) {
  const deadline = performance.now() + 1000 * limit;
  for (;;) {
    const found = await look();
    if (await over(found)) return found;
    assert(performance.now() < deadline, `${what} within ${limit} s; last: ${JSON.stringify(found)}`);
    await new Promise((resolve) => setTimeout(resolve, POLL));
  }
}

async function all(pages, most = 10000) {
  const found = [];
  for await (const one of pages) {
    found.push(one);
    assert(found.length < most, `pages end: ${most} items have come, the last is ${JSON.stringify(one)}`);
  }
  return found;
}

function orders(file, count) {
  const lines = fs.readFileSync(file, 'utf8').trim().split('\n').slice(0, count);
  return lines.map((line) => JSON.parse(line).messages).map((row) => ({ messages: row.slice(0, -1), answer: row.at(-1).content }));
}

const request = (model, order) => ({ model, messages: order.messages, max_tokens: 96, temperature: 0 });
const exact = (answers, held) => answers.filter((answer, at) => (answer ?? '').trim() === held[at].answer.trim()).length / held.length;

async function upload() {
  const files = await step('files.create', async () => {
    const made = [];
    for (const file of [asked.train, asked.validation]) {
      const one = await client.files.create({ file: fs.createReadStream(file), purpose: 'fine-tune' });
      const { object, purpose, bytes, filename } = one;
      assert.deepEqual(
        { object, purpose, bytes, filename },
        { object: 'file', purpose: 'fine-tune', bytes: fs.statSync(file).size, filename: path.basename(file) },
      );
      assert.match(one.id, /^file-/);
      made.push(one.id);
    }
    return [made, { files: made }];
  });
  await step('files.waitForProcessing', async () => {
    for (const id of files) {
      const file = await client.files.waitForProcessing(id, { pollInterval: POLL, maxWait: 60_000 });
      assert.equal(file.status, 'processed', JSON.stringify(file));
    }
    return [];
  });
  await step('files.list and files.content', async () => {
    const ids = (await all(client.files.list({ purpose: 'fine-tune' }))).map((file) => file.id);
    assert(files.every((id) => ids.includes(id)), `the list has ${files}; it is ${ids}`);
    const content = await client.files.content(files[0]);
    assert.equal(await content.text(), fs.readFileSync(asked.train, 'utf8'), 'content is what was uploaded');
    return [];
  });
  return files;
}

function method() {
  const number = (value) => (value === 'auto' ? value : Number(value));
  const hyperparameters = {
    n_epochs: number(asked.epochs),
    batch_size: number(asked['batch-size']),
    learning_rate_multiplier: number(asked['learning-rate-multiplier']),
  };
  return { type: 'supervised', supervised: { hyperparameters } };
}

async function create(files, seed) {
  const wanted = { model: asked.model, training_file: files[0], validation_file: files[1], seed, metadata: { journey: asked.suffix } };
  const job = await client.fineTuning.jobs.create({ ...wanted, suffix: asked.suffix, method: method() });
  for (const [name, value] of Object.entries(wanted)) assert.deepEqual(job[name], value, `the job's ${name}: ${JSON.stringify(job)}`);
  assert.match(job.id, /^ftjob-/);
  assert.equal(job.object, 'fine_tuning.job');
  assert(WAITS.includes(job.status), `a new job is not over: ${JSON.stringify(job)}`);
  assert.equal(job.fine_tuned_model, null, 'a new job has no model yet');
  return job;
}

async function train(files) {
  const { id } = await step('fineTuning.jobs.create', async () => {
    const job = await create(files, Number(asked.seed));
    return [job, { job: job.id }];
  });
  await step('fineTuning.jobs.listEvents while it trains', async () => {
    const trains = async (job) => {
      const events = await all(client.fineTuning.jobs.listEvents(id, { limit: 5 }));
      assert(WAITS.includes(job.status), `the job is still on when its first metrics appear: ${JSON.stringify(job)} ${JSON.stringify(events.slice(0, 5))}`);
      return job.status === 'running' && events.some((event) => event.type === 'metrics');
    };
    await until(() => client.fineTuning.jobs.retrieve(id), trains, Number(asked.deadline), 'the job trains, and says its metrics');
    return [];
  });
  await step('fineTuning.jobs.pause', async () => {
    await client.fineTuning.jobs.pause(id);
    const still = (job) => {
      assert(WAITS.includes(job.status), `a job that is being paused is not over: ${JSON.stringify(job)}`);
      return job.status === 'paused';
    };
    await until(() => client.fineTuning.jobs.retrieve(id), still, 90, 'the job is paused');
    return [];
  });
  await step('fineTuning.jobs.resume', async () => {
    assert.equal((await client.fineTuning.jobs.resume(id)).id, id);
    return [];
  });
  return step('fineTuning.jobs.retrieve until it succeeded', async () => {
    const job = await until(() => client.fineTuning.jobs.retrieve(id), (one) => !WAITS.includes(one.status), Number(asked.deadline), 'the job ends');
    const said = (await all(client.fineTuning.jobs.listEvents(id))).map((event) => event.message);
    assert.equal(job.status, 'succeeded', `${JSON.stringify(job)} ${JSON.stringify(said)}`);
    assert.match(job.fine_tuned_model, new RegExp(`^ft:.*:${asked.suffix}:`));
    assert(job.trained_tokens > 0 && job.finished_at >= job.created_at, JSON.stringify(job));
    for (const [name, value] of Object.entries(job.method.supervised.hyperparameters)) {
      assert.equal(typeof value, 'number', `${name} is resolved to a number: ${JSON.stringify(job.method)}`);
    }
    return [job, { model: job.fine_tuned_model, method: job.method }];
  });
}

async function lookAt(job) {
  await step('fineTuning.jobs.listEvents by after', async () => {
    const events = await all(client.fineTuning.jobs.listEvents(job.id));
    const ids = events.map((event) => event.id);
    assert.equal(new Set(ids).size, ids.length, `each event comes once: ${ids}`);
    const times = events.map((event) => event.created_at);
    assert.deepEqual(times, times.toSorted((a, b) => b - a), 'events come newest first');
    const older = await all(client.fineTuning.jobs.listEvents(job.id, { after: ids[1], limit: 3 }));
    assert.deepEqual(older.map((event) => event.id), ids.slice(2), 'after goes on where it was left');
    return [undefined, { events: ids.length }];
  });
  const checkpoints = await step('fineTuning.jobs.checkpoints.list', async () => {
    const found = await all(client.fineTuning.jobs.checkpoints.list(job.id));
    assert(found.length > 0, 'a finished job has a checkpoint');
    for (const one of found) {
      assert.equal(one.fine_tuning_job_id, job.id);
      assert(one.fine_tuned_model_checkpoint.includes(`:ckpt-step-${one.step_number}`), JSON.stringify(one));
    }
    return [found, { steps: found.map((one) => one.step_number) }];
  });
  await step('result_files', async () => {
    const csv = await (await client.files.content(job.result_files[0])).text();
    const [header, ...rows] = csv.trim().split(/\r?\n/);
    assert(header.split(',').includes('step') && header.split(',').includes('train_loss'), header);
    assert(rows.length > 0, csv);
    return [undefined, { header, rows: rows.length }];
  });
  await step('models.list and models.retrieve', async () => {
    const names = (await all(client.models.list())).map((model) => model.id);
    assert(names.includes(job.fine_tuned_model), `${job.fine_tuned_model} is on the list: ${names}`);
    const model = await client.models.retrieve(job.fine_tuned_model);
    assert.deepEqual([model.id, model.object], [job.fine_tuned_model, 'model']);
    return [];
  });
  return checkpoints.toSorted((a, b) => a.step_number - b.step_number)[0].fine_tuned_model_checkpoint;
}

async function answered(model, order) {
  const completion = await client.chat.completions.create(request(model, order));
  const [choice] = completion.choices;
  assert.deepEqual([completion.object, completion.model, choice.message.role], ['chat.completion', model, 'assistant']);
  assert(['stop', 'length'].includes(choice.finish_reason), JSON.stringify(completion));
  assert.equal(completion.usage.total_tokens, completion.usage.prompt_tokens + completion.usage.completion_tokens);
  return choice.message.content;
}

async function ask(model, checkpoint, heldOut) {
  const plain = await step('chat.completions.create', async () => {
    const answer = await answered(model, heldOut[0]);
    return [answer, { answer }];
  });
  await step('chat.completions.create, streamed', async () => {
    const stream = await client.chat.completions.create({ ...request(model, heldOut[0]), stream: true, stream_options: { include_usage: true } });
    const chunks = [];
    for await (const chunk of stream) chunks.push(chunk);
    const last = chunks.at(-1);
    assert(last.choices.length === 0 && last.usage.completion_tokens > 0, `the last chunk has the usage, and no choices: ${JSON.stringify(last)}`);
    const said = chunks.flatMap((chunk) => chunk.choices).map((choice) => choice.delta.content ?? '').join('');
    // A model that was hardly trained may waver between two likely tokens.
    if (Number(asked.bar)) assert.equal(said, plain, 'the stream says what the plain answer says');
    assert(said.length > 0, JSON.stringify(chunks));
    return [undefined, { chunks: chunks.length }];
  });
  await step('chat.completions.create of a checkpoint', async () => [undefined, { answer: await answered(checkpoint, heldOut[0]) }]);
  return step(`${heldOut.length} held-out orders, ${ASKING} at a time`, async () => {
    const answers = [];
    const left = [...heldOut.entries()];
    const work = async () => {
      for (let next = left.shift(); next; next = left.shift()) answers[next[0]] = await answered(model, next[1]);
    };
    await Promise.all(Array.from({ length: ASKING }, work));
    const share = exact(answers, heldOut);
    return [share, { exact_match: share }];
  });
}

async function askInABatch(model, heldOut) {
  const lines = heldOut.map((order, at) => ({ custom_id: `order-${at}`, method: 'POST', url: '/v1/chat/completions', body: request(model, order) }));
  const id = await step('batches.create', async () => {
    const bytes = Buffer.from(lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
    const file = await client.files.create({ file: await toFile(bytes, 'orders.jsonl'), purpose: 'batch' });
    const batch = await client.batches.create({ input_file_id: file.id, endpoint: '/v1/chat/completions', completion_window: '24h' });
    assert.deepEqual([batch.object, batch.input_file_id], ['batch', file.id]);
    return [batch.id, { batch: batch.id }];
  });
  return step('batches.retrieve until it is completed, and its answers', async () => {
    const over = (one) => ['completed', 'failed', 'expired', 'cancelled'].includes(one.status);
    const batch = await until(() => client.batches.retrieve(id), over, 300, 'the batch ends');
    const { total, completed, failed } = batch.request_counts ?? {};
    assert.deepEqual([batch.status, total, completed, failed], ['completed', lines.length, lines.length, 0], JSON.stringify(batch));
    const output = await (await client.files.content(batch.output_file_id)).text();
    const found = new Map(output.trim().split('\n').map((line) => JSON.parse(line)).map((line) => [line.custom_id, line]));
    assert.deepEqual([...found.keys()].toSorted(), lines.map((line) => line.custom_id).toSorted());
    for (const line of found.values()) assert.equal(line.response.status_code, 200, JSON.stringify(line));
    const share = exact(lines.map((line) => found.get(line.custom_id).response.body.choices[0].message.content), heldOut);
    return [share, { exact_match: share }];
  });
}

async function cancelAnother(files) {
  await step('fineTuning.jobs.cancel', async () => {
    const { id } = await create(files, Number(asked.seed) + 1);
    await client.fineTuning.jobs.cancel(id);
    const job = await until(() => client.fineTuning.jobs.retrieve(id), (one) => !WAITS.includes(one.status), 90, 'the job ends');
    assert.equal(job.status, 'cancelled', JSON.stringify(job));
    return [undefined, { job: id }];
  });
}

async function remove(model, files, order) {
  await step('models.delete and files.delete', async () => {
    for (const [gone, id] of [[await client.models.delete(model), model], ...(await Promise.all(files.map(async (file) => [await client.files.delete(file), file])))]) {
      assert.deepEqual([gone.id, gone.deleted], [id, true], JSON.stringify(gone));
    }
    return [];
  });
  await step('what is deleted is not found', async () => {
    await assert.rejects(client.models.retrieve(model), OpenAI.NotFoundError);
    await assert.rejects(client.chat.completions.create(request(model, order)), OpenAI.NotFoundError);
    for (const file of files) await assert.rejects(client.files.retrieve(file), OpenAI.NotFoundError);
    return [];
  });
}

await main();
