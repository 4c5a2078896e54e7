# runtime/broker/
