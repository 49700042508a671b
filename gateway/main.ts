import { enableCompileCache } from "node:module";

// Keeps stripped and compiled code between starts; only modules loaded afterwards profit.
enableCompileCache();
await import("./start.ts");
