# runtime/agent/
