// Socket.IO as its documentation sets it up, for `cargo xtask bench compare`: what a client subscribes to is a room, and
// an event that is posted goes to the rooms of its type and its subject. It keeps nothing and asks nobody who they are.
import { createServer } from "node:http";
import { Server } from "socket.io";

const [host, port] = process.argv[2].split(":");

// Whoever publishes is never hung up on, however late this server is.
const patient = { keepAliveTimeout: 0, requestTimeout: 0, headersTimeout: 0 };

const http = createServer(patient, async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const events = JSON.parse(Buffer.concat(chunks));
  for (const event of [events].flat()) io.to([event.type, event.subject]).emit("event", event);
  response.writeHead(201, { "content-length": 0 }).end();
});

const io = new Server(http, { serveClient: false });

io.on("connection", (socket) => {
  socket.on("subscribe", ({ types, subjects }, answer) => {
    socket.join(subjects ?? types);
    answer({ result: {} });
  });
});

http.listen(Number(port), host);
