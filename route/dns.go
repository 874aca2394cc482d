package route

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
)

// DNS is a Resolver that makes every A and AAAA record of a host an address of its own, the same for all topics.
// Package net does not tell how long a record may be kept, so a change is seen with the next lookup. It must not be
// changed while a Publisher has it, nor copied.
type DNS struct {
	// Address is host:port or tls://host:port. The certificate of a tls:// address must name the host.
	Address string
	// Route is what else the routes say: Policy, HashKey and Name. Its addresses are not used.
	Route Route
	// Resolver looks the host up; nil means net.DefaultResolver.
	Resolver *net.Resolver

	lookups shared
}

// Resolve looks the host up. Calls for other topics at the same time share the lookup.
func (d *DNS) Resolve(ctx context.Context, _ string) (Route, error) {
	r, err := d.lookups.do(ctx, d.lookUp)
	return r, unanswered(err, d.Address)
}

func (d *DNS) lookUp(ctx context.Context) (Route, error) {
	scheme, hostPort, explicit := strings.Cut(d.Address, "://")
	if !explicit {
		scheme, hostPort = "tcp", d.Address
	}
	host, port, err := net.SplitHostPort(hostPort)
	if err != nil || scheme != "tcp" && scheme != "tls" {
		return Route{}, fmt.Errorf("route: DNS.Address: %.200q is not host:port or tls://host:port", d.Address)
	}
	ips, err := orDefault(d.Resolver).LookupNetIP(ctx, "ip", host)
	if err != nil {
		return Route{}, fmt.Errorf("route: %w", err)
	}
	r := d.Route.Clone()
	r.Addresses, r.Attributes = nil, make(map[string]Attributes, len(ips))
	for _, ip := range ips {
		address := net.JoinHostPort(ip.Unmap().String(), port)
		a := Attributes{}
		if scheme == "tls" {
			address, a.ServerName = "tls://"+address, host
		}
		if _, twice := r.Attributes[address]; !twice {
			r.Addresses, r.Attributes[address] = append(r.Addresses, address), a
		}
	}
	return r, nil
}

// SRV is a Resolver that makes every SRV record of a name an address, with its priority and weight, the same for all
// topics. It must not be changed while a Publisher has it, nor copied.
type SRV struct {
	// Service, Proto and Name are those of the records: "orders", "tcp" and "example.com" for _orders._tcp.example.com.
	// With Service and Proto empty Name is looked up as it is.
	Service, Proto, Name string
	// TLS makes the addresses tls:// ones. Their certificates must name the records' targets.
	TLS bool
	// Route is what else the routes say: Policy, HashKey and Name. Its addresses are not used.
	Route Route
	// Resolver looks the records up; nil means net.DefaultResolver.
	Resolver *net.Resolver

	lookups shared
}

// Resolve looks the records up. Calls for other topics at the same time share the lookup.
func (s *SRV) Resolve(ctx context.Context, _ string) (Route, error) {
	r, err := s.lookups.do(ctx, s.lookUp)
	return r, unanswered(err, s.Name)
}

func (s *SRV) lookUp(ctx context.Context) (Route, error) {
	_, records, err := orDefault(s.Resolver).LookupSRV(ctx, s.Service, s.Proto, s.Name)
	if err != nil && len(records) == 0 { // some of the records can be invalid
		return Route{}, fmt.Errorf("route: %w", err)
	}
	r := s.Route.Clone()
	r.Addresses, r.Attributes = nil, make(map[string]Attributes, len(records))
	for _, record := range records {
		host := strings.TrimSuffix(record.Target, ".")
		if host == "" { // RFC 2782: the service is decidedly not available
			continue
		}
		address := net.JoinHostPort(host, strconv.Itoa(int(record.Port)))
		if s.TLS {
			address = "tls://" + address
		}
		r.Addresses = append(r.Addresses, address)
		r.Attributes[address] = Attributes{Priority: int(record.Priority), Weight: int(record.Weight)}
	}
	if len(r.Addresses) == 0 {
		return Route{}, errors.New("route: the SRV records name no address")
	}
	slices.Sort(r.Addresses) // package net shuffles them
	return r, nil
}

// unanswered says what was looked up where a lookup has not ended in its time: package net does not.
func unanswered(err error, name string) error {
	failed := (*net.DNSError)(nil)
	if !errors.Is(err, context.DeadlineExceeded) || errors.As(err, &failed) {
		return err
	}
	return fmt.Errorf("route: %w", &net.DNSError{Err: "no answer in time", Name: name, IsTimeout: true, IsTemporary: true, UnwrapErr: err})
}

func orDefault(r *net.Resolver) *net.Resolver {
	if r == nil {
		return net.DefaultResolver
	}
	return r
}
