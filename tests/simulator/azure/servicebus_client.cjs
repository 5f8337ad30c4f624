// The official JavaScript client against the stand-in of Service Bus: one line of JSON with what it saw.
const { ServiceBusClient } = require("@azure/service-bus");

async function taken(receiver, count) {
  const found = [];
  while (found.length < count) {
    const messages = await receiver.receiveMessages(count - found.length, { maxWaitTimeInMs: 3000 });
    if (!messages.length) break;
    for (const message of messages) {
      found.push(message.body);
      await receiver.completeMessage(message);
    }
  }
  return found;
}

async function main(client) {
  const saw = {};
  const plain = client.createSender("plain");
  for (let i = 0; i < 20; i++) await plain.sendMessages({ body: `m${i}` });
  await plain.sendMessages([{ body: "batch-1" }, { body: "batch-2" }]);
  saw.plain = await taken(client.createReceiver("plain"), 22);

  const exact = client.createSender("exact");
  for (let i = 0; i < 6; i++) await exact.sendMessages({ body: `e${i}`, messageId: `id${i % 2}` });
  saw.exact = await taken(client.createReceiver("exact"), 2);

  const sessions = client.createSender("sessions");
  for (const name of ["a1", "b1", "a2"]) await sessions.sendMessages({ body: name, sessionId: name[0] });
  saw.session = await taken(await client.acceptSession("sessions", "a"), 2);

  await plain.sendMessages({ body: "odd" });
  const receiver = client.createReceiver("plain");
  let [odd] = await receiver.receiveMessages(1, { maxWaitTimeInMs: 3000 });
  await receiver.abandonMessage(odd);
  [odd] = await receiver.receiveMessages(1, { maxWaitTimeInMs: 3000 });
  saw.deliveries = odd.deliveryCount;
  await receiver.deadLetterMessage(odd, { deadLetterReason: "odd", deadLetterErrorDescription: "it is" });
  const [dead] = await client.createReceiver("plain", { subQueueType: "deadLetter" }).receiveMessages(1);
  saw.dead = dead.deadLetterReason;

  await client.createSender("topic").sendMessages({ body: "news" });
  saw.topic = await taken(client.createReceiver("topic", "other"), 1);
  console.log(JSON.stringify(saw));
}

const client = new ServiceBusClient(process.argv[2]);
main(client).then(() => process.exit(0), (error) => { console.error(error); process.exit(1); });
