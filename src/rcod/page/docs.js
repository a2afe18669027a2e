// The HTTP interface, written out from its own OpenAPI description.

const routes = document.getElementById("routes");
document.getElementById("example").textContent =
  `curl -F image=@photo.jpg -F realism=0.4 ${location.origin}/v1/upscale -o large.png`;

function make(tag, text, kind) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (kind) element.className = kind;
  return element;
}

function table(head, rows) {
  const whole = make("table");
  const top = whole.createTHead().insertRow();
  for (const title of head) top.append(make("th", title));
  const inside = whole.createTBody();
  for (const row of rows) {
    const line = inside.insertRow();
    row.forEach((cell, i) => line.insertCell().append(i === 0 ? make("code", cell) : cell));
  }
  const frame = make("div", undefined, "table");
  frame.append(whole);
  return frame;
}

function kind(schema) {
  if (schema.anyOf) return kind(schema.anyOf[0]); // the other is that it may be left out
  if (schema.enum) return schema.enum.join(", ");
  if (schema.format === "binary" || schema.contentMediaType) return "file";
  const range = schema.minimum !== undefined ? `, ${schema.minimum} to ${schema.maximum}` : "";
  return `${schema.type ?? "text"}${range}`;
}

try {
  const description = await (await fetch("/openapi.json")).json();
  routes.textContent = "";
  for (const [path, methods] of Object.entries(description.paths)) {
    for (const [method, route] of Object.entries(methods)) {
      const part = make("section");
      part.append(make("h2", `${method.toUpperCase()} ${path}`), make("p", route.summary));
      const form = route.requestBody?.content["multipart/form-data"]?.schema;
      if (form) {
        const schema = form.$ref ? description.components.schemas[form.$ref.split("/").pop()] : form;
        part.append(table(["field", "is", "default", "means"], Object.entries(schema.properties).map(
          ([name, field]) => [name, kind(field), schema.required.includes(name) ? "required" : String(field.default ?? ""), field.description ?? ""])));
      }
      part.append(table(["answer", "means"], Object.entries(route.responses).map(
        ([status, { description: text }]) => [status, text])));
      routes.append(part);
    }
  }
} catch {
  routes.textContent = "The description can't be read; is the server still running?";
}
