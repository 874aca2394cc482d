// Package hosts measures routes over several hosts: replicas that are processes of their own on loopback addresses, and
// publishers that spread messages over them while replicas are restarted, killed, stopped or slow. HOSTS=1 runs it.
package hosts
