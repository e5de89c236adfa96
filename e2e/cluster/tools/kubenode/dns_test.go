package main

import (
	"testing"

	"golang.org/x/net/dns/dnsmessage"
	corev1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"
)

func aZone(t *testing.T) zone {
	t.Helper()
	byNamespace := cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc}
	services := cache.NewIndexer(cache.MetaNamespaceKeyFunc, byNamespace)
	endpointSlices := cache.NewIndexer(cache.MetaNamespaceKeyFunc, byNamespace)
	service := func(name, clusterIP string, publishNotReady bool) *corev1.Service {
		return &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
			Spec:       corev1.ServiceSpec{ClusterIP: clusterIP, PublishNotReadyAddresses: publishNotReady},
		}
	}
	endpoint := func(address, host string, ready bool) discovery.Endpoint {
		return discovery.Endpoint{Addresses: []string{address}, Hostname: &host, Conditions: discovery.EndpointConditions{Ready: &ready}}
	}
	endpointSlice := func(ofService string) *discovery.EndpointSlice {
		return &discovery.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: "shop", Name: ofService + "-1", Labels: map[string]string{discovery.LabelServiceName: ofService},
			},
			Endpoints: []discovery.Endpoint{endpoint("10.1.0.1", "db-0", true), endpoint("10.1.0.2", "db-1", false)},
		}
	}
	for _, object := range []*corev1.Service{
		service("web", "10.96.0.7", false), service("db", corev1.ClusterIPNone, false),
		service("peers", corev1.ClusterIPNone, true), service("empty", corev1.ClusterIPNone, false),
	} {
		if err := services.Add(object); err != nil {
			t.Fatal(err)
		}
	}
	for _, object := range []*discovery.EndpointSlice{endpointSlice("db"), endpointSlice("peers")} {
		if err := endpointSlices.Add(object); err != nil {
			t.Fatal(err)
		}
	}
	return zone{
		suffix:   ".svc.cluster.local.",
		services: corelisters.NewServiceLister(services),
		slices:   discoverylisters.NewEndpointSliceLister(endpointSlices),
	}
}

func TestNames(t *testing.T) {
	z := aZone(t)
	for _, c := range []struct {
		what, name string
		addresses  []string
		exists     bool
	}{
		{"a Service has its cluster IP", "web.shop.svc.cluster.local.", []string{"10.96.0.7"}, true},
		{"names have no case", "WEB.Shop.svc.cluster.LOCAL.", []string{"10.96.0.7"}, true},
		{"a headless Service has its ready pods", "db.shop.svc.cluster.local.", []string{"10.1.0.1"}, true},
		{"and the others where it publishes them", "peers.shop.svc.cluster.local.", []string{"10.1.0.1", "10.1.0.2"}, true},
		{"a ready pod has its own name", "db-0.db.shop.svc.cluster.local.", []string{"10.1.0.1"}, true},
		{"one that is not ready has none", "db-1.db.shop.svc.cluster.local.", nil, false},
		{"a headless Service without pods exists", "empty.shop.svc.cluster.local.", nil, true},
		{"no such Service", "gone.shop.svc.cluster.local.", nil, false},
		{"another namespace", "web.other.svc.cluster.local.", nil, false},
		{"outside of the cluster", "example.com.", nil, false},
		{"not a Service's name", "svc.cluster.local.", nil, false},
	} {
		t.Run(c.what, func(t *testing.T) {
			addresses, exists := z.lookup(c.name)
			if exists != c.exists || len(addresses) != len(c.addresses) {
				t.Fatalf("lookup(%s) = %v, %v", c.name, addresses, exists)
			}
			for i := range addresses {
				if addresses[i].String() != c.addresses[i] {
					t.Errorf("lookup(%s) = %v", c.name, addresses)
				}
			}
		})
	}
}

func TestAnswers(t *testing.T) {
	z := aZone(t)
	ask := func(name string, kind dnsmessage.Type) dnsmessage.Message {
		t.Helper()
		query := dnsmessage.Message{
			Header: dnsmessage.Header{ID: 7, RecursionDesired: true},
			Questions: []dnsmessage.Question{
				{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET},
			},
		}
		packet, err := query.Pack()
		if err != nil {
			t.Fatal(err)
		}
		var reply dnsmessage.Message
		if err := reply.Unpack(z.answer(packet)); err != nil {
			t.Fatal(err)
		}
		if reply.ID != 7 || !reply.Response {
			t.Fatalf("header %v", reply.Header)
		}
		return reply
	}
	if reply := ask("web.shop.svc.cluster.local.", dnsmessage.TypeA); reply.RCode != dnsmessage.RCodeSuccess || len(reply.Answers) != 1 {
		t.Errorf("A of a Service: %v", reply)
	}
	if reply := ask("web.shop.svc.cluster.local.", dnsmessage.TypeAAAA); reply.RCode != dnsmessage.RCodeSuccess || len(reply.Answers) != 0 {
		t.Errorf("AAAA of a Service: %v", reply)
	}
	if reply := ask("example.com.", dnsmessage.TypeA); reply.RCode != dnsmessage.RCodeNameError {
		t.Errorf("a name outside: %v", reply)
	}
	if reply := z.answer([]byte("noise")); reply != nil {
		t.Errorf("noise was answered: %v", reply)
	}
}
