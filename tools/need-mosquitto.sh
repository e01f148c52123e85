#!/usr/bin/env bash
# Mosquitto is a system package: ask apt for it where we may, else say in one line what will be skipped.
set -u
command -v mosquitto >/dev/null 2>&1 || [ -x /usr/sbin/mosquitto ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  (apt-get update -qq && apt-get install -y -qq --no-install-recommends mosquitto) >/dev/null 2>&1 && exit 0
fi
if [ "${CI:-}" = true ]; then
  echo "mosquitto is missing and could not be installed: apt-get install mosquitto" >&2
  exit 1
fi
echo "mosquitto is not installed (apt-get install mosquitto): its tests are skipped" >&2
