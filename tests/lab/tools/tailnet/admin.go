package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"tailscale.com/tailcfg"
	"tailscale.com/tstest/integration/testcontrol"
)

// override is what nodes are told of one of them in place of what the coordination server says.
type override struct {
	keyExpiry *time.Time
	online    *bool
}

// admin is the interface for tests: it approves routes, lets keys expire and takes nodes off line.
type admin struct {
	control *testcontrol.Server

	mu        sync.Mutex
	overrides map[string]override
}

func newAdmin(control *testcontrol.Server) *admin {
	return &admin{control: control, overrides: map[string]override{}}
}

func (a *admin) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /nodes", func(w http.ResponseWriter, _ *http.Request) {
		if err := json.NewEncoder(w).Encode(a.control.AllNodes()); err != nil {
			log.Printf("nodes: %v", err)
		}
	})
	mux.HandleFunc("POST /routes", a.ofNode(a.approveRoutes))
	mux.HandleFunc("POST /key-expiry", a.ofNode(a.setKeyExpiry))
	mux.HandleFunc("POST /online", a.ofNode(a.setOnline))
	mux.HandleFunc("POST /refresh", func(w http.ResponseWriter, _ *http.Request) { reply(w, a.refresh()) })
	return mux
}

// approveRoutes takes `routes=10.42.2.0/24,…` in place of what was approved; none takes it back.
func (a *admin) approveRoutes(node *tailcfg.Node, r *http.Request) error {
	var routes []netip.Prefix
	for text := range strings.SplitSeq(r.FormValue("routes"), ",") {
		if text == "" {
			continue
		}
		route, err := netip.ParsePrefix(text)
		if err != nil {
			return err
		}
		routes = append(routes, route)
	}
	a.control.SetSubnetRoutes(node.Key, routes)
	return nil
}

// setKeyExpiry takes `in=90s`, `in=-1m` or `in=never` and tells the node and its peers.
func (a *admin) setKeyExpiry(node *tailcfg.Node, r *http.Request) error {
	var expiry time.Time
	if in := r.FormValue("in"); in != "never" {
		left, err := time.ParseDuration(in)
		if err != nil {
			return err
		}
		expiry = time.Now().Add(left).UTC().Truncate(time.Second)
	}
	node.KeyExpiry = expiry
	a.control.UpdateNode(node)
	a.override(node, func(o *override) { o.keyExpiry = &expiry })
	return a.refresh()
}

// setOnline takes `on=true` or `on=false`: whether peers are told that the node is connected here.
func (a *admin) setOnline(node *tailcfg.Node, r *http.Request) error {
	online := r.FormValue("on") != "false"
	a.override(node, func(o *override) { o.online = &online })
	return a.refresh()
}

func (a *admin) override(node *tailcfg.Node, change func(*override)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	o := a.overrides[shortName(node)]
	change(&o)
	a.overrides[shortName(node)] = o
}

// refresh sends every node a whole map with the overrides. From then on the server sends these nodes nothing by
// itself: it takes another refresh after other changes.
func (a *admin) refresh() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, node := range a.control.AllNodes() {
		res, err := a.control.MapResponse(&tailcfg.MapRequest{NodeKey: node.Key})
		if err != nil || res == nil {
			return fmt.Errorf("map of %s: %v", node.Name, err)
		}
		// The server says 2020, with which clients do not check expiry themselves.
		now := time.Now()
		res.ControlTime = &now
		a.apply(res.Node)
		for _, peer := range res.Peers {
			a.apply(peer)
		}
		if !a.control.AddRawMapResponse(node.Key, res) {
			log.Printf("refresh: %s does not listen", node.Name)
		}
	}
	return nil
}

func (a *admin) apply(node *tailcfg.Node) {
	o := a.overrides[shortName(node)]
	if o.keyExpiry != nil {
		node.KeyExpiry = *o.keyExpiry
	}
	if o.online != nil {
		node.Online = o.online
	}
}

// ofNode finds the node that the request names.
func (a *admin) ofNode(handle func(*tailcfg.Node, *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		name := r.FormValue("node")
		for _, node := range a.control.AllNodes() {
			if shortName(node) == name {
				reply(w, handle(node, r))
				return
			}
		}
		http.Error(w, fmt.Sprintf("no node %q", name), http.StatusNotFound)
	}
}

func shortName(node *tailcfg.Node) string {
	name, _, _ := strings.Cut(node.Name, ".")
	return name
}

func reply(w http.ResponseWriter, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	fmt.Fprintln(w, "ok")
}
