# Sourced by scripts/demo and scripts/test: everything they need before their own work starts.
# shellcheck shell=bash
#
# After `make_ready EXTRAS`, "$python" is the interpreter of .venv with the project installed in
# it. Python and pip are all that is asked for; where we are root on Debian or Ubuntu, what is
# missing is installed, elsewhere one line says which command helps.

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="$root/.venv"
python="$venv/bin/python"

# pip's advice (a newer pip, not to be root) is about the machine, not about this project.
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

# Tested versions first; plain python3 last, so that one newer than all of them still serves.
interpreters=(python3.13 python3.12 python3.11 python3)

say() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; }

die() {
  say "$*"
  exit 1
}

may_install() { [[ $EUID -eq 0 ]] && command -v apt-get >/dev/null; }

# Install Debian packages, silent unless it fails. The package lists are fetched once a run.
apt_install() {
  local log
  log="$(mktemp)"
  say "installing $*"
  if [[ -z ${apt_updated:-} ]]; then
    # A source that doesn't answer is no reason to stop: the install below decides.
    apt-get update -qq >"$log" 2>&1 || true
    apt_updated=yes
  fi
  if ! DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "$@" >>"$log" 2>&1; then
    cat "$log" >&2
    rm -f "$log"
    return 1
  fi
  rm -f "$log"
}

# need COMMAND=PACKAGE...: install the packages whose command is missing, where we may.
need() {
  local pair missing=()
  for pair in "$@"; do
    # Debian keeps administrators' commands where a plain user's PATH does not look.
    PATH="$PATH:/usr/sbin:/sbin" command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
  done
  [[ ${#missing[@]} -eq 0 ]] && return
  if may_install; then
    apt_install "${missing[@]}" || say "could not install ${missing[*]}; going on without"
  else
    say "${missing[*]} missing, going on without (apt-get install ${missing[*]})"
  fi
}

new_enough() {
  command -v "$1" >/dev/null && "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))'
}

# Debian splits ensurepip off: `import venv` works, and making an environment then fails.
can_make_venv() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

# Print the first interpreter that is 3.11 or newer and passes the test named in $1.
find_interpreter() {
  local one
  for one in "${interpreters[@]}"; do
    if new_enough "$one" 2>/dev/null && "$1" "$one" 2>/dev/null; then
      command -v "$one"
      return
    fi
  done
  return 1
}

# Print an interpreter that can make the environment, installing it where we may.
require_interpreter() {
  local found version package
  find_interpreter can_make_venv && return
  if found="$(find_interpreter true)"; then
    version="$("$found" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')"
    package="$version-venv"
    may_install || die "$version has no venv module: apt-get install $package"
    apt_install "$package" || die "could not install $package"
  else
    found="$(command -v python3 >/dev/null && python3 --version || echo "no python3")"
    package=python3.11
    may_install || die "Python 3.11 or newer is needed, here is $found: apt-get install $package $package-venv"
    apt_install python3 python3-venv || true
    find_interpreter can_make_venv && return
    apt_install "$package" "$package-venv" ||
      die "Python 3.11 or newer is needed, here is $found, and this release has no $package"
  fi
  find_interpreter can_make_venv || die "$package is installed and still makes no environment"
}

# quietly COMMAND...: what it says is shown where it fails. Ctrl-C is no failure of its own: it
# reaches pip too, which would tell of it in twenty lines.
quietly() {
  local log status=0
  log="$(mktemp)"
  trap 'rm -f "$log"; say "interrupted; run it again to go on"; exit 130' INT
  "$@" >"$log" 2>&1 || status=$?
  trap - INT
  [[ $status -eq 0 ]] || cat "$log" >&2
  rm -f "$log"
  return "$status"
}

# What the installed environment depends on. The path too: a moved checkout needs a new one.
fingerprint() {
  cat "$root/pyproject.toml" "$root/constraints.txt" <(echo "$root $1") | sha256sum
}

# make_ready EXTRAS: .venv with the project in it; EXTRAS is "" or "[dev]".
make_ready() {
  local stamp="$venv/.installed$1" interpreter
  # Somebody who ran the tests has all that the demo needs.
  if [[ -x $python ]]; then
    [[ "$(cat "$stamp" 2>/dev/null)" == "$(fingerprint "$1")" ]] && return
    [[ "$(cat "$venv/.installed[dev]" 2>/dev/null)" == "$(fingerprint "[dev]")" ]] && return
  fi
  if ! usable_venv; then
    interpreter="$(require_interpreter)"
    say "making .venv with $interpreter"
    quietly "$interpreter" -m venv --clear "$venv"
  fi
  say "installing preflight$1 into .venv: once, and it takes a while"
  # The build back end is installed first and used from here, so that it is pinned as well:
  # constraints do not reach into pip's isolated builds.
  local pip=("$python" -m pip install --quiet -c "$root/constraints.txt")
  quietly "${pip[@]}" hatchling editables
  quietly "${pip[@]}" --no-build-isolation --editable "$root$1"
  fingerprint "$1" >"$stamp"
}

# An environment that was moved here, or whose interpreter is gone, is made anew.
usable_venv() {
  [[ -x $python ]] && new_enough "$python" && grep -qs "^#!$venv/" "$venv/bin/pip"
}
