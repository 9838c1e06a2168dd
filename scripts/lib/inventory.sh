# What a cloud could leave behind on this host.  Sourced.
# shellcheck shell=bash

# inventory PROGRAM: namespaces, links, routes, rules, nft tables, sysctls, processes of the
# program and of QEMU, and files where the program may put them; one line each, sorted.
inventory() {
  local program=$1
  {
    ip netns list | awk '{print "namespace " $1}'
    ip -o link show | awk -F': ' '{split($2, n, "@"); print "link " n[1]}'
    ip -4 route show table all | sed 's/ *$//; s/^/route /'
    ip -4 rule show | sed 's/^/rule /'
    nft list tables 2>/dev/null | sed 's/^/nft /'
    sysctl -a 2>/dev/null | grep -E '^net\.ipv4\.(ip_forward|conf\.(all|default)\.)' | sed 's/^/sysctl /'
    for exe in /proc/[0-9]*/exe; do
      case $(readlink "$exe" 2>/dev/null || true) in
      "$program"* | */qemu-system-*) echo "process ${exe%/exe}" ;;
      esac
    done
    for folder in /var/lib/cumulet /run/cumulet /etc/cumulet; do
      if [ -e "$folder" ]; then echo "folder $folder"; fi
    done
  } | sort
}
