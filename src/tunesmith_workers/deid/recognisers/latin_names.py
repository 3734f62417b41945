"""Names in Latin letters of countries that Faker writes in another script or knows few names of. Written by hand; no list is whole."""

from __future__ import annotations

FIRST = frozenset(
    # Japanese
    "Yuki Haruto Yuto Sota Hiroto Riku Kaito Kenji Takashi Hiroshi Satoshi Kazuki Daiki Takumi Makoto Ryota Shota Naoki Tetsuya Yusuke Daisuke Kenta Masato "
    "Akira Hideo Isamu Koji Noboru Ryo Shinji Takeshi Tomohiro Toshiro Yoshio Sakura Yui Hina Aoi Rin Akiko Yoko Keiko Michiko Naoko Tomoko Yumi Emiko Haruka "
    "Ayaka Misaki Nanami Kaori Megumi Sayuri Kumiko Mariko Chiyo Fumiko Hanako Kazuko Mika Miyuki Natsuki Rika Sachiko Yukiko "
    # Korean
    "Minjun Seojun Jihoon Junho Hyun Hyunwoo Jiwoo Seoyeon Minseo Jiyeon Soojin Eunji Hyejin Yuna Sooyoung Minji Jisoo Dongwook Sanghoon Taehyung Jungkook "
    "Youngho Sunghoon Kyung Seung Woojin Haneul Yejin Jaehyun "
    # Vietnamese, Thai, Malay, Filipino
    "Nguyen Thuy Linh Huong Trang Phuong Hanh Thao Quynh Khanh Minh Hieu Quang Tuan Dung Thanh Duc Hung Nam Phuc Bao Somchai Somsak Niran Anong Siriporn Wei Hafiz "
    "Faizal Aminah Farid Razak Siti Nurul Aziz Jomar Rodel Arnel Jhun Maricel Rowena Lourdes Dewi Putri Budi Agus Wayan "
    # Arabic, Persian, Turkish, Central Asian
    "Ahmed Ahmad Mohamed Mohammed Muhammad Mahmoud Mustafa Hassan Hussein Hussain Khalid Khaled Tariq Omar Youssef Yousef Yusuf Ibrahim Ismail Karim Kareem Samir Samira Nabil "
    "Rami Ziad Walid Waleed Faisal Fahad Nasser Saeed Salman Hamza Bilal Jamal Jamil Rashid Majid Nadim Nadia Layla Leila Laila Fatima Fatimah Aisha Ayesha Amina Zainab Zahra Mariam "
    "Maryam Noor Nour Hala Rania Dalia Yasmin Yasmine Salma Huda Samar Soraya Farah Reem Dina Lina Hadeel Reza Ali Amir Dariush Farhad Behrouz Parisa Shirin Nasrin Mehdi Javad "
    "Emre Mehmet Mert Burak Cem Kemal Murat Serkan Tolga Ayse Elif Zeynep Fatma Selin Esra Aslan Timur Rustam Dilnoza Gulnara Aigul Nurlan "
    # South Asian
    "Priya Rahul Rohan Rohit Amit Anil Sunil Vijay Ajay Sanjay Rajesh Ramesh Suresh Mahesh Dinesh Ganesh Mukesh Naresh Deepak Vikram Vivek Arjun Karan Varun Tarun Nikhil Akash "
    "Ashok Manoj Pradeep Sandeep Kuldeep Harpreet Gurpreet Manpreet Jaspreet Anjali Anita Sunita Kavita Savita Lakshmi Meena Meera Neha Pooja Puja Rekha Ritu Shreya Sneha Swati Asha "
    "Usha Divya Aarti Arti Nisha Preeti Shilpa Sapna Vandana Padma Radha Indira Imran Irfan Asif Zeeshan Shahid Nasir Farhan Ayaan Zara Sana Hina Bushra Rabia Saima Tahir Waqas Thilini Nimal "
    "Kamala Ravi Kiran Arun Ananya Ishaan Aditya Aryan Dhruv Kabir Tanvi Isha Ishita Siddharth Venkat Srinivas Murali Harish Girish Satish "
    "Priyanka Aishwarya Deepika Katrina Kareena Sonia Sonam Rashmi Archana Jyoti Jaya Geeta Gita Gayatri Sarita Sushma Shobha Sudha Vidya Vimala Anand Anupam Ashwin Bharat Chetan Gaurav Gopal "
    "Hari Hemant Jagdish Jatin Krishna Lalit Madhav Mohan Mohit Naveen Nitin Pankaj Parth Pranav Prakash Prashant Raghav Raj Raju Rakesh Ranjit Ravindra Sachin Sagar Sameer Santosh Saurabh "
    "Shankar Shyam Sourav Subhash Sumit Surya Tushar Uday Umesh Vinay Vinod Vishal Yash Yogesh Zubair "
    # African
    "Kofi Kwame Kwesi Kojo Yaw Ama Abena Akua Efua Esi Chinedu Chidi Emeka Ikenna Obinna Nnamdi Uche Chioma Ngozi Amara Ifeoma Adaeze Nkechi Chinwe Ade Adebayo Adeola Ayodele Babajide "
    "Oluwaseun Olumide Folake Funmi Temitope Tunde Yetunde Bukola Kehinde Taiwo Amadou Mamadou Ousmane Moussa Ibrahima Fatou Aminata Mariama Aissatou Awa Sekou Cheikh Thabo Sipho "
    "Bongani Siyabonga Nokuthula Ayanda Nandi Lindiwe Busisiwe Sizwe Bheki Jabulani Mpho Tebogo Naledi Refilwe Katlego Temba Themba Mandla Nomsa Thandi Lerato Palesa Zanele Tshepo Kagiso Wanjiru Wambui Njeri Kamau Mwangi Otieno Achieng Akinyi Juma Baraka Neema Abebe Tesfaye Dawit Selam Hirut Mulugeta "
    "Tendai Tafadzwa Farai Rudo "
    # Slavic, Baltic, Balkan, Greek, Hungarian
    "Fyodor Leonid Lev Arkady Artem Artyom Denis Gennady Grigory Ilya Kirill Stanislav Timofey Valery Vasily Vitaly Vyacheslav Yegor Yevgeny Zinaida Lyubov Nadezhda Raisa Tamara Valentina Vera Zoya Ivan Dmitri Dmitry Sergei Sergey Alexei Aleksei Andrei Andrey Mikhail Nikolai Vladimir Boris Igor Oleg Yuri Pavel Anatoly Konstantin Maxim Kirill Anastasia Ekaterina Olga Irina "
    "Tatiana Tatyana Svetlana Natalia Natalya Ludmila Lyudmila Galina Oksana Yulia Yelena Elena Daria Ksenia Viktor Viktoria Oleksandr Andriy Mykola Taras Bohdan Volodymyr Olena Iryna "
    "Piotr Pawel Tomasz Krzysztof Marcin Michal Wojciech Jakub Lukasz Grzegorz Agnieszka Katarzyna Malgorzata Magdalena Joanna Zofia Kasia Jiri Vaclav Tomas Petr Ondrej Zdenek Jana "
    "Lenka Zuzana Marek Milos Milan Dragan Goran Zoran Bojan Dejan Nikola Stefan Vuk Jelena Milica Dragana Snezana Ivana Mirjana Vesna Ljubica Georgi Dimitar Stoyan Hristo Plamen Ivanka "
    "Desislava Giorgos Yannis Kostas Dimitris Nikos Panagiotis Eleni Katerina Sofia Despina Laszlo Zoltan Istvan Gabor Attila Balazs Katalin Eszter Zsofia Ilona Gheorghe Mihai Bogdan Vlad "
    "Ioana Andreea Cristina Raluca Mircea "
    # English, short
    "Jess Kate Liz Beth Ben Sam Tom Tim Matt Mike Dave Steve Chris Nick Alex Andy Tony Greg Jeff Ken Ron Jim Joe Bob Pete Phil Doug Kev Danny Johnny Jenny Abby Maddie Becky Vicky Debbie Katie "
    "Meg Steph Nat Tess Zoe Gwen Fran Trish Pam Tina Gina Lucy Molly Polly Sally Wendy Cathy Carol Josh Zach Nate Gabe Theo Leo Gus Hank Walt Vern Lou Marge Peggy Patty Cindy Mandy Sandra Mindy "
    "Jodie Jody Toni Terri Lori Traci Stacy Stacey Kathy Kristy Misha Sasha Bess Bonnie Connie Dottie Edie Effie Elsie Hattie Hettie Kitty Lottie Mae Millie Minnie Nellie Nettie Winnie Archie "
    "Alfie Ollie Freddie Charlie Barney Bertie Monty Ned Ted Teddy Toby Davey Jonny Robbie Ronnie Donnie Lonnie Vinny Manny Lenny Benny Sammy Tommy Timmy Billy Willie Eddie Louie Gerry Larry Barry "
    "Garry Darren Lucille Imogen Philippa Quentin Tyrese Bjorn Astrid Rhonda Xiomara Zbigniew Wolfgang Josiah Monique Lucinda Cordelia Ottilie Clementine Saoirse Niamh Caoimhe Oisin Cillian Eoin "
    "Fergus Hamish Callum Iain Ewan Euan Rhys Gethin Dylan Cerys Angharad Sian Bethan "
    # American names of late
    "Jamal DeShawn Deshawn Darnell Tyrone Terrell Marquis Jermaine Tyrell Lamar Kareem Latoya Lakisha Keisha Tamika Shanice Ebony Aaliyah Imani Kiara Tanisha Shaniqua DeAndre Deandre "
    "Trevon Malik Jalen Jaylen Keyshawn Brayden Kayden Jayden Aiden Zayden Kaylee Bailey Kinsley Mackenzie Mckenzie Makayla Brianna Kendra Latisha Rashad Dwayne Desmond Reggie Cedric Clarence "
    "Otis Mabel Ethel Winifred Agatha Beatrice Bernadette Gwendolyn Lorraine Marlene Maureen Nora Rosalind Thelma Wilma Zelda".split()
)

LAST = frozenset(
    # Japanese
    "Sato Suzuki Takahashi Tanaka Watanabe Ito Yamamoto Nakamura Kobayashi Kato Yoshida Yamada Sasaki Yamaguchi Matsumoto Inoue Kimura Hayashi Shimizu Yamazaki Mori Abe Ikeda Hashimoto "
    "Yamashita Ishikawa Nakajima Maeda Fujita Ogawa Goto Okada Hasegawa Murakami Kondo Ishii Saito Sakamoto Endo Aoki Fujii Nishimura Fukuda Ota Miura Fujiwara Okamoto Matsuda Nakagawa "
    "Harada Ono Tamura Takeuchi Kaneko Wada Nakayama Ishida Ueda Morita Kojima Shibata Hara Sakai Kudo Yokoyama Miyazaki Miyamoto Uchida Takagi Ando Taniguchi Ohno Maruyama Imai Kawasaki "
    # Korean, Chinese outside China
    "Kim Park Choi Jung Jeong Kang Cho Yoon Jang Lim Han Shin Seo Kwon Hwang Ahn Song Ryu Hong Moon Yang Bae Baek Heo Nam Noh Ha Sung Cha Joo Woo Lee Wong Chan Cheung Leung Lam Lau Ng Chow "
    "Kwok Tsang Tse Yip Yeung Ho Chiu Mak Fung Tam Siu Kwan Ong Teo Goh Koh Chua Sim Tay Toh Yeo Huang Lin Chang Tsai Hsu Hsieh Liao Kuo "
    # Vietnamese, Thai, Malay, Indonesian, Filipino
    "Nguyen Tran Le Pham Huynh Hoang Phan Vu Vo Dang Bui Do Ngo Duong Ly Truong Dinh Lam Suharto Wijaya Santoso Hidayat Setiawan Saputra Kusuma Widodo Reyes Cruz Bautista Ocampo Santos "
    "Aquino Ramos Villanueva Mercado Dizon Pangilinan Tolentino Abdullah Rahman Ismail Ibrahim Hashim "
    # Arabic, Persian, Turkish
    "Ahmed Ali Hassan Hussein Khalil Haddad Khoury Nasser Mansour Saleh Salem Said Saad Farouk Fares Hamdan Hamid Ibrahim Ismail Jaber Jabbar Karam Kassem Qasim Mahmoud Masri Mustafa "
    "Najjar Nassar Odeh Omar Rahman Sabbagh Sayed Shaheen Sharif Suleiman Tawfik Yousef Zaki Ziadeh Aziz Darwish Farah Ghanem Habib Abadi Ahmadi Akbari Bahrami Ebrahimi Farahani Ghorbani "
    "Hosseini Jafari Karimi Mohammadi Moradi Mousavi Rezaei Sadeghi Tehrani Yilmaz Kaya Demir Celik Sahin Yildiz Ozturk Aydin Arslan Dogan Kilic Aslan Cetin Kara Koc Kurt Ozdemir Polat "
    # South Asian
    "Patel Sharma Gupta Singh Kumar Khan Shah Mehta Desai Joshi Verma Mishra Pandey Tiwari Dubey Yadav Chauhan Rajput Thakur Rao Reddy Naidu Iyer Iyengar Nair Menon Pillai Varma Krishnan "
    "Raman Subramanian Chatterjee Banerjee Mukherjee Ghosh Bose Sen Das Dutta Roy Chowdhury Chaudhary Malhotra Kapoor Khanna Chopra Bhatia Arora Ahuja Bedi Gill Grewal Sandhu Dhillon Sidhu "
    "Kaur Agarwal Bansal Goel Jain Shetty Hegde Kulkarni Deshpande Patil Pawar Jadhav Shinde Kale Malik Qureshi Siddiqui Ansari Sheikh Mirza Baig Butt Chaudhry Hussain Iqbal Raza Zaidi "
    "Perera Fernando Silva Jayawardena Wickramasinghe Rahman Islam Hossain Akhter Begum Thapa Gurung Shrestha "
    # African
    "Okafor Okonkwo Okoye Okeke Eze Nwosu Obi Nwankwo Adeyemi Adebayo Adeleke Afolabi Ogunleye Oyelaran Balogun Bello Abubakar Musa Danjuma Achebe Soyinka Mensah Owusu Boateng Asante Osei Agyeman "
    "Appiah Amoah Ansah Addo Adjei Acheampong Diallo Diop Ndiaye Sow Traore Keita Coulibaly Toure Konate Cisse Camara Sissoko Dlamini Nkosi Ndlovu Khumalo Mkhize Zulu Mokoena Naidoo Molefe "
    "Mwangi Kamau Njoroge Kariuki Otieno Ochieng Odhiambo Wanjiku Kimani Kipchoge Mutua Tesfaye Bekele Haile Abebe Gebre Moyo Ncube Sibanda Banda Phiri Mwale Oduya "
    # Slavic, Baltic, Balkan, Greek, Hungarian, Nordic
    "Ivanov Ivanova Petrov Petrova Sidorov Smirnova Kuznetsov Kuznetsova Popov Popova Volkov Volkova Sokolov Sokolova Lebedev Kozlov Novikov Morozov Pavlov Orlov Fedorov Mikhailov Romanov "
    "Shevchenko Kovalenko Bondarenko Tkachenko Kravchenko Melnyk Kowalski Kowalska Nowak Wisniewski Wojcik Kaminski Lewandowski Zielinski Szymanski Wozniak Dabrowski Kozlowski Jankowski "
    "Mazur Krawczyk Novak Novotny Svoboda Dvorak Cerny Prochazka Kucera Vesely Horak Nemec Kral Horvat Horvath Kovac Kovacs Babic Maric Juric Petrovic Jovanovic Nikolic Markovic Djordjevic "
    "Stojanovic Ilic Pavlovic Todorov Dimitrov Georgiev Papadopoulos Georgiou Nikolaidis Pappas Economou Nagy Szabo Toth Varga Molnar Farkas Popescu Ionescu Popa Radu Dumitru Stan Stoica "
    "Nilsson Johansson Andersson Karlsson Eriksson Larsson Olsson Persson Svensson Gustafsson Lindberg Lindqvist Bergstrom Hansen Jensen Nielsen Larsen Pedersen Christensen Rasmussen Sorensen "
    "Olsen Haugen Hagen Korhonen Virtanen Nieminen Laine Heikkinen Koskinen Jonsdottir Sigurdsson Kazlauskas Ozols Tamm".split()
)

NO_NAMES_HERE = frozenset(
    "Line Math Server True Valid Alpha Sys Else Add Constant Len Less Beta Unique Link Made Edit Dot Nan Doc Red Delta Sine Unknown Reason Among Job Trace Odd Dev Edu Theta Branch "
    "Elif Kelvin Us Fed Minor Little Tiny Ab Floor Media Von Emit Tab Ever Chi Zeta Hence Mat Ties Colon Cap Echo Tan Lies Lot Carry Arch Conn Author Man Ceil Said Maxima Greet Peer Ver "
    "Versa Worth Ridge Roll Handy Spring Winter Blossom Sim Mal Rand Lo Fancy Uni Tri Tilde Aud Hilbert Ey Kaiser Magna Bird Sole Eta Haven Sem Pol Ib Press Bode Unnamed Lark Ell Stormy "
    "Octave Orange Forum Pink Lemma Stanford Cam Berry Gelu Relu Kaldi Sir Lord Lady Baby Boy Girl Mister Doctor Captain Deacon Cello Java Data Model Token Train Batch Prompt List Each Org Block "
    "Way Handler Hand Pop Roots Too Parts Low Repo Comment Hook Put Bins Reader Bare Guard Held Lie Mamba Soon Carrier Wild Renders Seven Stock Forget Foot Mach Hell Car Mark Can Bay Tell Ask "
    "Ocean Sunday Monday Friday Star Blue Happy Lucky Sunny Love Peace Heaven Treasure Success Blessing Gift Innocent Precious Prosper Wisdom Hero Ready Truth Glory Favour Favor Lord Loyal Most "
    "Male Female Ring Storm Rain Snow Sun Moon Wind Fire Water Earth Air Sand Day Night Morning Evening Music Dance Tea Coffee Cherry Apple Lemon Peach Honey Sugar Candy Cookie Cat Dog Lion Tiger "
    "Wolf Fox Bear Hawk Eagle Falcon Raven Dove Robin Rose Deal Sale Order Item Total Cost Free Full Half Extra Super Mega Mini Nova Terra Luna Vega Orion Aurora Venus Mars Saturn Jupiter Pluto Comet "
    "Crew Team Club Band Camp Field House Home Office Bank Shop Store Mall Hotel Station Central Union Federal National Royal Imperial Global Universal General Major Minor Common Public Private Fast Slow "
    "Arctic Baltic Atlantic Pacific Persia Britain Britannia Catalonia Lorraine Alsace Savoy Tirol Tyrol Cuba Peru Chile Mali Chad Niger Benin Oman Iran Iraq Syria Jordan Cyprus Malta Monaco Andorra Tonga Samoa "
    "Lima Quito Bogota Caracas Havana Cairo Tunis Rabat Dakar Accra Lagos Abuja Nairobi Kampala Kigali Harare Lusaka Luanda Maputo Oslo Bergen Stockholm Helsinki Tallinn Riga Vilnius Warsaw Krakow Prague Brno Bratislava "
    "Budapest Bucharest Sofia Belgrade Zagreb Ljubljana Sarajevo Skopje Athens Ankara Istanbul Izmir Baku Tbilisi Yerevan Tehran Baghdad Damascus Beirut Amman Riyadh Doha Dubai Kabul Karachi Lahore Dhaka Colombo Kathmandu "
    "Yangon Bangkok Hanoi Saigon Manila Jakarta Surabaya Bandung Kyoto Osaka Kobe Nagoya Sapporo Fukuoka Seoul Busan Incheon Taipei Macau Perth Adelaide Brisbane Auckland Wellington Suva Porto Faro Coimbra Seville Valencia "
    "Granada Toledo Cordoba Malaga Bilbao Lyon Marseille Nice Nantes Lille Bordeaux Rennes Reims Turin Genoa Venice Verona Bologna Pisa Siena Naples Palermo Bari Cologne Dresden Leipzig Bonn Kiel Salzburg Graz Linz Bern Basel "
    "Lausanne Lugano Antwerp Ghent Bruges Rotterdam Utrecht Eindhoven Aarhus Odense Malmo Uppsala Turku Tampere".split()
) - frozenset({"Sofia", "Valencia", "Lorraine", "Orion", "Luna", "Robin", "Aurora", "Venus"})
"""What the longer lists of Faker call names, and what is a word or a place far more often."""
