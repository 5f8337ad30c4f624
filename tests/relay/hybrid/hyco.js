// Microsoft's own clients for Hybrid Connections, in the roles a test asks for: node hyco.js ROLE ws://127.0.0.1:PORT
const [role, base] = process.argv.slice(2);
const uri = `${base}/$hc/actions`;
const say = (text) => process.stdout.write(`${text}\n`);

function token(library) {
  return () => library.createRelayToken(uri, "site", "the key");
}

if (role === "listens-ws") {
  const ws = require("hyco-ws");
  const server = ws.createRelayedServer(
    { server: `${uri}?sb-hc-action=listen`, token: token(ws) },
    (socket) => socket.on("message", (text) => socket.send(`node heard ${text}`)),
  );
  server.on("listening", () => say("listens"));
} else if (role === "listens-https") {
  require("https");
  const https = require("hyco-https");
  const server = https.createRelayedServer(
    { server: `${uri}?sb-hc-action=listen`, token: token(https) },
    (request, response) => {
      let size = 0;
      request.on("data", (piece) => { size += piece.length; });
      request.on("end", () => {
        response.setHeader("X-Seen", request.url);
        response.end("z".repeat(Number(request.url.split("?")[1] || 0)) + `${request.method} ${size}`);
      });
    },
  );
  server.on("listening", () => say("listens"));
  server.listen();
} else {
  const ws = require("hyco-ws");
  const socket = ws.relayedConnect(`${uri}?sb-hc-action=connect`, token(ws)());
  socket.on("open", () => socket.send('{"from": "node"}'));
  socket.on("message", (text) => { say(text); socket.close(); });
  socket.on("error", (error) => say(`error ${error.message}`));
}
