#!/bin/bash
# The pod network of a small cluster whose nodes share one link: a point-to-point pair per pod, a
# route per other node, one masquerade rule. Runs on each node in the host network.
# Reads: the Node objects. Writes: /etc/cni/net.d, this node's routes, an nftables table of its own.
# Woken by the watch; what to do is always worked out from a full list, so a lost event costs nothing.
set -euo pipefail

readonly api="https://${KUBERNETES_SERVICE_HOST}:${KUBERNETES_SERVICE_PORT}/api/v1/nodes"
readonly account=/var/run/secrets/kubernetes.io/serviceaccount
readonly configuration=/etc/cni/net.d/10-azora.conflist
# Marks our routes, so that only those are ever removed. Any number that no other program uses.
readonly protocol=77

ask() {
    curl --silent --show-error --fail --cacert "$account/ca.crt" --header "Authorization: Bearer $(cat $account/token)" "$@"
}

# Lines of "name address pod-range" from the answer to a list, nodes without a range left out.
nodes() {
    jq --raw-output '.items[] | select(.spec.podCIDR) | [.metadata.name,
        ([.status.addresses[]? | select(.type == "InternalIP") | .address][0] // ""), .spec.podCIDR] | join(" ")'
}

write_configuration() {
    local range=$1 wanted
    wanted=$(jq --null-input --arg range "$range" '{cniVersion: "0.4.0", name: "azora", plugins: [
        {type: "ptp", ipMasq: false, ipam: {type: "host-local", dataDir: "/run/cni-ipam-state",
         routes: [{dst: "0.0.0.0/0"}], ranges: [[{subnet: $range}]]}},
        {type: "portmap", capabilities: {portMappings: true}}]}')
    [[ -f $configuration && $(<"$configuration") == "$wanted" ]] && return 0
    # Moved into place: containerd must never read half a file.
    echo "$wanted" >"$configuration.partial"
    mv "$configuration.partial" "$configuration"
    echo "wrote $configuration for $range"
}

set_routes() {
    local wanted=$1 range
    while read -r range address; do
        [[ -z $range ]] || ip route replace "$range" via "$address" proto $protocol || return 1
    done <<<"$wanted"
    while read -r range _; do
        if [[ -n $range ]] && ! grep --quiet --fixed-strings "$range " <<<"$wanted"; then
            ip route delete "$range" proto $protocol
            echo "removed the route to $range"
        fi
    done < <(ip route show proto $protocol)
}

# Pods keep their address within the cluster and take the node's towards the outside.
masquerade() {
    nft --file - <<EOF
table ip azora_cni
delete table ip azora_cni
table ip azora_cni {
    chain postrouting {
        type nat hook postrouting priority srcnat + 10;
        ip saddr $1 ip daddr != $POD_SUBNET fib daddr type != local masquerade
    }
}
EOF
}

# Every failure is handed back by hand: bash ignores `errexit` in a function that a condition calls.
reconcile() {
    local list own=() routes="" name address range
    list=$(ask "$api" | nodes) || return 1
    while read -r name address range; do
        if [[ $name == "$NODE_NAME" ]]; then
            own=("$range")
        elif [[ -n $address ]]; then
            routes+="$range $address"$'\n'
        fi
    done <<<"$list"
    if [[ ${#own[@]} -eq 0 ]]; then
        echo "this node has no pod range yet"
        return 1
    fi
    set_routes "$routes" && write_configuration "${own[0]}" || return 1
    if [[ ${masqueraded:-} != "${own[0]}" ]]; then
        masquerade "${own[0]}" || return 1
        masqueraded=${own[0]}
    fi
}

trap 'exit 0' TERM INT
while true; do
    until reconcile; do sleep 1; done
    # A line per change of any node. The stream ends by itself now and then, and begins anew.
    while read -r _; do
        reconcile || break
    done < <(ask --no-buffer --max-time 300 "$api?watch=true&timeoutSeconds=290" 2>/dev/null)
    sleep 1
done
