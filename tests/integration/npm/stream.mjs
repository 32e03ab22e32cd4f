// npm's `ai`, asked for one turn per line of standard input; prints each part that its stream gives as a line of JSON.
//
// In: {"provider", "url", "model", "tools"}. Out: the parts of `fullStream`, then {"type": "end"}.

import { createInterface } from "node:readline";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createGoogleGenerativeAI } from "@ai-sdk/google";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { jsonSchema, streamText, tool } from "ai";

globalThis.AI_SDK_LOG_WARNINGS = false;

const apiKey = "any";

const models = {
  "openai-chat": (url, model) =>
    createOpenAICompatible({ name: "penstock", baseURL: `${url}/v1`, apiKey, includeUsage: true })(model),
  "openai-responses": (url, model) => createOpenAI({ baseURL: `${url}/v1`, apiKey }).responses(model),
  "anthropic-messages": (url, model) => createAnthropic({ baseURL: `${url}/v1`, apiKey })(model),
  gemini: (url, model) => createGoogleGenerativeAI({ baseURL: `${url}/v1beta`, apiKey })(model),
};

const look = tool({
  description: "d",
  inputSchema: jsonSchema({ type: "object", properties: { at: { type: "string" } }, required: ["at"] }),
});

const plain = (key, value) =>
  value instanceof Error ? { name: value.name, message: value.message, statusCode: value.statusCode } : value;

for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line);
  const stream = streamText({
    model: models[asked.provider](asked.url, asked.model),
    prompt: "Tell me",
    tools: asked.tools ? { look } : undefined,
    maxRetries: 0,
    onError: () => {},
    abortSignal: AbortSignal.timeout(15000),
  });
  for await (const part of stream.fullStream) console.log(JSON.stringify(part, plain));
  console.log('{"type":"end"}');
}
