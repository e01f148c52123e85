#!/usr/bin/env bash
# The Bluetooth bench runs a dbus-daemon of its own: ask apt for it where we may, else say in one line what is skipped.
set -u
command -v dbus-daemon >/dev/null 2>&1 && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  (apt-get update -qq && apt-get install -y -qq --no-install-recommends dbus) >/dev/null 2>&1 && exit 0
fi
if [ "${CI:-}" = true ]; then
  echo "dbus-daemon is missing and could not be installed: apt-get install dbus" >&2
  exit 1
fi
echo "dbus-daemon is not installed (apt-get install dbus): the Bluetooth tests are skipped" >&2
