// Command tailnet is the far side of a tailnet of the lab on one address: a coordination server (HTTP 8080), a DERP
// relay (TCP 3340) and a STUN responder (UDP 3478), and an interface for tests (HTTP 8081).
package main

import (
	"crypto/tls"
	"errors"
	"flag"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"

	"tailscale.com/derp/derpserver"
	"tailscale.com/net/stun"
	"tailscale.com/tailcfg"
	"tailscale.com/tstest/integration/testcontrol"
	"tailscale.com/types/key"
	"tailscale.com/types/logger"
)

const (
	derpPort = 3340
	stunPort = 3478
)

func main() {
	address := flag.String("address", "127.0.0.1", "the IPv4 address to serve on")
	flag.Parse()
	ip, err := netip.ParseAddr(*address)
	if err != nil {
		log.Fatalf("address %q: %v", *address, err)
	}
	if err := serve(ip); err != nil {
		log.Fatal(err)
	}
}

// serve runs all four services until one of them fails.
func serve(ip netip.Addr) error {
	failed := make(chan error, 4)
	if err := serveDERP(ip); err != nil {
		return err
	}
	go func() { failed <- serveSTUN(ip) }()
	control := &testcontrol.Server{
		ExplicitBaseURL:  "http://" + netip.AddrPortFrom(ip, 8080).String(),
		AllOnline:        true,
		AllNodesSameUser: true,
		MagicDNSDomain:   "lab.ts.net",
		DERPMap:          derpMap(ip),
		// Nodes that are told to be relays are allowed to be some.
		PeerRelayGrants: true,
	}
	go func() { failed <- http.ListenAndServe(netip.AddrPortFrom(ip, 8080).String(), control) }()
	admin := newAdmin(control)
	go func() { failed <- http.ListenAndServe(netip.AddrPortFrom(ip, 8081).String(), admin.handler()) }()
	return <-failed
}

// derpMap has one region, which is the home of every node.
func derpMap(ip netip.Addr) *tailcfg.DERPMap {
	node := &tailcfg.DERPNode{
		Name: "1a", RegionID: 1, HostName: ip.String(), IPv4: ip.String(), IPv6: "none",
		DERPPort: derpPort, InsecureForTests: true, STUNPort: stunPort, STUNTestIP: ip.String(),
	}
	region := &tailcfg.DERPRegion{RegionID: 1, RegionCode: "lab", Nodes: []*tailcfg.DERPNode{node}}
	return &tailcfg.DERPMap{Regions: map[int]*tailcfg.DERPRegion{1: region}}
}

// serveDERP relays over TLS with a certificate of its own, which nobody checks.
func serveDERP(ip netip.Addr) error {
	listener, err := net.Listen("tcp", netip.AddrPortFrom(ip, derpPort).String())
	if err != nil {
		return err
	}
	relay := derpserver.New(key.NewNode(), logger.Discard)
	server := httptest.NewUnstartedServer(derpserver.Handler(relay))
	_ = server.Listener.Close()
	server.Listener = listener
	// HTTP/2 has no connections that can be taken over.
	server.Config.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){}
	server.StartTLS()
	return nil
}

func serveSTUN(ip netip.Addr) error {
	socket, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, stunPort)))
	if err != nil {
		return err
	}
	buffer := make([]byte, 1500)
	for {
		length, from, err := socket.ReadFromUDPAddrPort(buffer)
		if err != nil {
			return errors.Join(errors.New("STUN"), err)
		}
		transaction, err := stun.ParseBindingRequest(buffer[:length])
		if err != nil {
			continue
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		if _, err := socket.WriteToUDPAddrPort(stun.Response(transaction, from), from); err != nil {
			log.Printf("STUN to %v: %v", from, err)
		}
	}
}
