# CoreDNS alone: kubeadm's Deployment gives arguments and no command.
FROM scratch
COPY coredns /coredns
ENTRYPOINT ["/coredns"]
