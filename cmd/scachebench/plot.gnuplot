# SPDX-License-Identifier: EPL-2.0
#
# gnuplot -c plot.gnuplot CSV DIRECTORY: plots what the benchmark has measured.

csv = ARG1
directory = ARG2

set datafile separator comma
set datafile missing NaN
set terminal svg size 640,420 dynamic background "white" font "sans-serif,13"
set key above left vertical reverse Left
set grid ytics lc rgb "#dddddd"
set border 3
set tics nomirror
set ylabel "pairs per second"
set yrange [0:]
set style data linespoints
set style line 1 lw 2 pt 7 ps 0.6 lc rgb "#c0392b"
set style line 2 lw 2 pt 7 ps 0.6 lc rgb "#1f6fb2"
set style line 3 lw 2 pt 7 ps 0.6 lc rgb "#999999" dt 2

# Columns: 2 server, 3 workload, 4 clients, 5 idle, 6 cached, 7 operations per second.
pair(name) = strcol(2) eq name && strcol(3) eq "pair" && $5 == 0

set output directory."/throughput-clients.svg"
set xlabel "clients, each on a thread of its own"
set logscale x 2
plot csv skip 1 using (pair("stock") && $6 == 0 ? $4 : NaN):7 title "stock scache" ls 1, \
     csv skip 1 using (pair("ours") && $6 == 0 ? $4 : NaN):7 title "this scache" ls 2, \
     csv skip 1 using (pair("floor") && $6 == 0 ? $4 : NaN):7 title "floor: the same system calls, no cache" ls 3

set output directory."/throughput-cached.svg"
set xlabel "sessions in the cache (8 clients)"
unset logscale x
plot csv skip 1 using (pair("stock") && $4 == 8 ? $6 : NaN):7 title "stock scache" ls 1, \
     csv skip 1 using (pair("ours") && $4 == 8 ? $6 : NaN):7 title "this scache" ls 2, \
     csv skip 1 using (pair("floor") && $4 == 8 ? $6 : NaN):7 title "floor: the same system calls, no cache" ls 3
