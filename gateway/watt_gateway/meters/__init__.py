"""Where readings come from: signed batches of plugs (`plug`) and the register of a main meter (`modbus`)."""
